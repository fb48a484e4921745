"use strict";
// Texts get into the page by textContent only; what they hold is never read as markup.
(() => {
  const $ = (id) => document.getElementById(id);
  const all = JSON.parse($("data").textContent);
  const users = {};
  for (const at of Object.keys(all)) users[at] = [];
  for (const [at, one] of Object.entries(all)) for (const input of one.i || []) users[input].push(Number(at));
  const root = document.documentElement;

  // Light and dark.
  const kept = (value) => {
    try {
      if (value === undefined) return localStorage.getItem("phoenix-theme");
      localStorage.setItem("phoenix-theme", value);
    } catch { /* A page from a file may keep nothing. */ }
    return null;
  };
  if (["light", "dark"].includes(kept())) root.dataset.theme = kept();
  const turn = () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    kept(root.dataset.theme = dark ? "light" : "dark");
  };
  $("theme").addEventListener("click", turn);

  // What is known of a derivation.
  const detail = $("detail");
  let selected = null, from = null;
  const make = (tag, text, kind) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };
  const list = (title, positions) => {
    if (positions.length === 0) return;
    const items = make("ul");
    for (const at of positions.slice(0, 40)) {
      const item = make("li", undefined, all[at].v), button = make("button", all[at].n);
      button.type = "button";
      button.addEventListener("click", () => select(at, true));
      item.append(button);
      items.append(item);
    }
    if (positions.length > 40) items.append(make("li", `and ${positions.length - 40} more`));
    detail.append(make("h4", title), items);
  };
  const fill = (at) => {
    const one = all[at];
    const close = make("button", "×", "close");
    close.type = "button";
    close.setAttribute("aria-label", "Close");
    close.addEventListener("click", clear);
    detail.replaceChildren(close, make("h3", one.n));
    detail.className = one.v;
    const facts = [one.w, one.m && `on ${one.m}`, one.s].filter(Boolean).join(" · ");
    detail.append(make("p", facts));
    if (one.b) detail.append(make("p", `began at ${one.b}, took ${one.t}`));
    if (one.g) detail.append(make("p", `It waited for ${all[one.g[0]].n}, ready at ${one.g[1]}; it began ${one.g[2]} later.`, "waited"));
    else if (one.b) detail.append(make("p", "It waited for no other build.", "waited"));
    list("needs", one.i || []);
    list("needed by", users[at]);
    detail.append(make("p", one.p, "path"));
    detail.hidden = false;
  };
  const bar = (at) => $(`b${at}`);
  const link = (one, other, after) => {
    const chart = $("chart").getBoundingClientRect();
    const a = bar(one).getBoundingClientRect(), b = bar(other).getBoundingClientRect();
    const x = a.right - chart.left, y = a.top + a.height / 2 - chart.top;
    const u = b.left - chart.left, v = b.top + b.height / 2 - chart.top;
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", `M${x} ${y}C${x + 24} ${y} ${u - 24} ${v} ${u} ${v}`);
    if (after) path.setAttribute("class", "after");
    $("links").append(path);
  };
  const drawLinks = () => {
    if (!$("links")) return;
    $("links").replaceChildren();
    if (selected === null || !bar(selected)) return;
    for (const input of all[selected].i || []) if (bar(input)) { bar(input).classList.add("near"); link(input, selected); }
    for (const user of users[selected]) if (bar(user)) { bar(user).classList.add("near"); link(selected, user, true); }
  };
  const unmark = () => {
    document.querySelectorAll(".on, .near").forEach((one) => one.classList.remove("on", "near"));
    document.querySelectorAll("[aria-selected]").forEach((one) => one.removeAttribute("aria-selected"));
    if ($("lanes")) $("lanes").classList.remove("picking");
  };
  function select(at, show) {
    if (!all[at]) return;
    unmark();
    selected = at;
    document.querySelectorAll(`[data-d="${at}"]`).forEach((one) => one.classList.add("on"));
    if (bar(at)) {
      $("lanes").classList.add("picking");
      bar(at).setAttribute("aria-selected", "true");
      $("lanes").setAttribute("aria-activedescendant", `b${at}`);
      if (show) bar(at).scrollIntoView({ block: "nearest", inline: "nearest" });
    }
    drawLinks();
    fill(at);
  }
  function clear() {
    if (selected === null) return;
    selected = null;
    unmark();
    drawLinks();
    detail.hidden = true;
    if ($("lanes")) $("lanes").removeAttribute("aria-activedescendant");
    if (from && document.contains(from)) from.focus({ preventScroll: true });
  }
  document.querySelectorAll("[data-d]").forEach((one) => {
    const go = () => { from = one.closest("[tabindex]"); select(Number(one.dataset.d)); };
    one.addEventListener("click", go);
    one.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); go(); }
    });
  });

  // The timeline: arrow keys, and how wide it is.
  if ($("chart")) {
    const bars = [...document.querySelectorAll("#chart .b")].map((one) => ({
      at: Number(one.dataset.d), x: parseFloat(one.getAttribute("x")), y: Number(one.getAttribute("y")),
      end: parseFloat(one.getAttribute("x")) + parseFloat(one.getAttribute("width")),
    }));
    const nearest = (candidates, far) => candidates.reduce((best, one) => (best && far(best) <= far(one) ? best : one), null);
    const step = (key) => {
      const now = bars.find((one) => one.at === selected);
      if (!now) return nearest(bars, (one) => one.y * 1000 + one.x);
      const lane = bars.filter((one) => one.y === now.y);
      const apart = (one) => Math.max(0, one.x - now.end, now.x - one.end);
      if (key === "ArrowRight") return nearest(lane.filter((one) => one.x > now.x), (one) => one.x);
      if (key === "ArrowLeft") return nearest(lane.filter((one) => one.x < now.x), (one) => -one.x);
      const below = key === "ArrowDown";
      const others = bars.filter((one) => (below ? one.y > now.y : one.y < now.y));
      return nearest(others, (one) => Math.abs(one.y - now.y) * 1000 + apart(one));
    };
    $("lanes").addEventListener("keydown", (event) => {
      if (!event.key.startsWith("Arrow") || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      from = $("lanes");
      const next = step(event.key);
      if (next) select(next.at, true);
    });
    let zoom = 1;
    const scale = (to) => {
      zoom = Math.min(64, Math.max(1, to));
      $("chart").setAttribute("width", `${zoom * 100}%`);
      drawLinks();
      if (selected !== null && bar(selected)) bar(selected).scrollIntoView({ block: "nearest", inline: "center" });
    };
    $("in").addEventListener("click", () => scale(zoom * 2));
    $("out").addEventListener("click", () => scale(zoom / 2));
    $("fit").addEventListener("click", () => scale(1));
    addEventListener("resize", drawLinks);
  }

  // The table: search, verdicts, order.
  const body = $("table").tBodies[0], rows = [...body.rows];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const chips = [...document.querySelectorAll(".chip")];
  const narrow = () => {
    const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const kinds = chips.filter((chip) => chip.ariaPressed === "true").map((chip) => chip.dataset.v);
    let count = 0;
    rows.forEach((row, at) => {
      const fits = words.every((word) => texts[at].includes(word)) && (kinds.length === 0 || kinds.includes(row.className));
      row.hidden = !fits;
      count += fits;
    });
    $("found").textContent = count === rows.length ? `${rows.length} in all` : `${count} of ${rows.length}`;
  };
  $("search").addEventListener("input", narrow);
  chips.forEach((chip) => chip.addEventListener("click", () => {
    chip.ariaPressed = String(chip.ariaPressed !== "true");
    narrow();
  }));
  [...document.querySelectorAll("thead button")].forEach((button) => button.addEventListener("click", () => {
    const head = button.parentElement, column = head.cellIndex;
    const down = head.ariaSort === "ascending";
    document.querySelectorAll("thead th").forEach((one) => one.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => {
      const cell = row.cells[column];
      return "s" in cell.dataset ? Number(cell.dataset.s || -1) : cell.textContent;
    };
    const order = [...rows].sort((a, b) => {
      const [one, other] = [key(a), key(b)];
      const sign = typeof one === "number" ? one - other : one.localeCompare(other, undefined, { numeric: true });
      return down ? -sign : sign;
    });
    body.append(...order);
  }));
  narrow();

  // Keys for everywhere.
  addEventListener("keydown", (event) => {
    const typing = event.target instanceof HTMLInputElement;
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === "Escape") {
      if (typing) { event.target.value = ""; narrow(); event.target.blur(); } else clear();
    } else if (!typing && event.key === "/") { event.preventDefault(); $("search").focus(); }
    else if (!typing && event.key === "t") turn();
  });
})();
