// The HTML report in a real browser: node page.mjs PHOENIX CHROMIUM DIRECTORY
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";
import * as events from "./events.mjs";

const [phoenix, named, directory] = process.argv.slice(2);
if (!directory) throw new Error("usage: node page.mjs PHOENIX CHROMIUM DIRECTORY");
// Playwright takes no name, but a path.
const executablePath = process.env.PATH.split(delimiter).map((place) => join(place, named)).find((path) => existsSync(path));

/** Makes the page of a run, by the command that users have. */
function made(name) {
  const [from, to] = [join(directory, `${name}.jsonl`), join(directory, `${name}.html`)];
  const run = events[name]();
  writeFileSync(from, run.map((event) => `${JSON.stringify(event)}\n`).join(""));
  const { status, stderr } = spawnSync(phoenix, ["report", from, "--html", to], { encoding: "utf8", stdio: ["ignore", "ignore", "pipe"] });
  assert.equal(status, run.at(-1).exitCode, stderr);
  assert.equal(stderr, "", "every line is an event");
  return to;
}

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
let failed = 0;

/** Opens the page of a run and looks at it; whatever the browser complains of is a failure. */
async function test(words, name, look, settings = {}) {
  const context = await browser.newContext({ viewport: { width: 1360, height: 900 }, ...settings });
  const page = await context.newPage();
  const complaints = [];
  page.on("console", (message) => complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => { if (!request.url().startsWith("file:")) complaints.push(`asks for ${request.url()}`); });
  try {
    const file = made(name);
    await page.goto(pathToFileURL(file).href);
    await look(page, file);
    assert.deepEqual(complaints, [], "the browser complains of nothing");
    console.log(`ok - ${words}`);
  } catch (error) {
    failed += 1;
    console.log(`not ok - ${words}\n${error.stack}`);
  }
  await context.close();
}

const detail = (page) => page.locator("#detail");
const rows = (page) => page.locator("#table tbody tr:visible");

await test("a click on a build says what it waited for", "everything", async (page) => {
  await page.locator('.b[aria-label^="curl-8.7.1"]').click();
  assert.match(await detail(page).innerText(), /curl-8\.7\.1[\s\S]*on runner \d[\s\S]*It waited for (openssl-3\.0\.13|zlib-1\.3\.1), ready at \+/);
  assert.ok(await page.locator("#links path").count() >= 2, "lines to what it needs");
  await page.screenshot({ path: join(directory, "light.png"), fullPage: true });
  await detail(page).getByRole("button", { name: "openssl-3.0.13" }).click();
  assert.match(await detail(page).innerText(), /openssl-3\.0\.13[\s\S]*It waited for no other build/);
  await detail(page).getByRole("button", { name: "Close" }).click();
  assert.equal(await detail(page).isVisible(), false);
});

await test("the graph leads from the failure to what it blocked", "everything", async (page) => {
  const failure = page.locator(".graph .box.failed");
  assert.equal(await failure.count(), 1);
  const left = (await failure.boundingBox()).x;
  for (const box of await page.locator(".graph .box.blocked").all()) assert.ok((await box.boundingBox()).x > left);
  await failure.click();
  assert.match(await detail(page).innerText(), /libgit2-1\.7\.2[\s\S]*failed/);
  assert.match(await page.locator(".failure pre").first().innerText(), /implicit declaration of function/);
});

await test("the table can be searched, narrowed and sorted", "everything", async (page) => {
  const all = await rows(page).count();
  assert.equal(all, 101);
  await page.locator("#search").fill("CACHED-1 checks");
  assert.equal(await rows(page).count(), 11);
  assert.equal(await page.locator("#found").innerText(), "11 of 101");
  await page.locator("#search").fill("");
  await page.locator(".chip.failed").click();
  assert.equal(await rows(page).count(), 1);
  await page.locator(".chip.failed").click();
  assert.equal(await rows(page).count(), all);
  const time = page.locator("thead th.n button");
  await time.click();
  await time.click();
  const seconds = await rows(page).locator("td.n").evaluateAll((cells) => cells.map((cell) => Number(cell.dataset.s || -1)));
  assert.deepEqual(seconds, [...seconds].sort((a, b) => b - a), "the longest is first");
  assert.equal(await page.locator('th[aria-sort="descending"]').innerText(), "time");
});

await test("everything can be done with the keyboard", "everything", async (page) => {
  await page.keyboard.press("/");
  await page.keyboard.type("broken");
  assert.equal(await rows(page).count(), 1);
  await page.keyboard.press("Escape");
  assert.equal(await rows(page).count(), 101);
  await page.locator("#lanes").focus();
  await page.keyboard.press("ArrowRight");
  const first = await detail(page).locator("h3").innerText();
  await page.keyboard.press("ArrowRight");
  const second = await detail(page).locator("h3").innerText();
  assert.notEqual(first, second);
  await page.keyboard.press("ArrowLeft");
  assert.equal(await detail(page).locator("h3").innerText(), first);
  await page.keyboard.press("ArrowDown");
  assert.match(await detail(page).innerText(), /on runner 1/);
  await page.keyboard.press("Escape");
  assert.equal(await detail(page).isVisible(), false);
  await page.locator(".graph .box.failed").focus();
  await page.keyboard.press("Enter");
  assert.equal(await detail(page).isVisible(), true);
  await page.keyboard.press("Escape");
  assert.equal(await page.evaluate(() => document.activeElement.classList.contains("failed")), true, "focus goes back");
  await page.keyboard.press("t");
  assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), "dark");
});

await test("a larger timeline is wider, and fits again", "everything", async (page) => {
  const width = async () => (await page.locator("#chart").boundingBox()).width;
  const before = await width();
  await page.getByRole("button", { name: "Zoom in" }).click();
  assert.ok(Math.abs(await width() / before - 2) < 0.05);
  await page.getByRole("button", { name: "Fit" }).click();
  assert.equal(await width(), before);
});

await test("the page is dark where that is wanted", "everything", async (page) => {
  const paper = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  assert.equal(paper, "rgb(21, 19, 17)");
  await page.screenshot({ path: join(directory, "dark.png"), fullPage: true });
}, { colorScheme: "dark" });

await test("it is readable on a telephone", "everything", async (page) => {
  const [wide, seen] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(wide <= seen, `${wide} > ${seen}`);
  await page.screenshot({ path: join(directory, "narrow.png") });
}, { viewport: { width: 390, height: 844 } });

await test("a hostile flake runs nothing and hides nothing", "hostile", async (page) => {
  assert.equal(await page.evaluate(() => window.owned), undefined);
  assert.equal(await page.locator("img").count(), 0);
  assert.equal(await page.locator("script").count(), 2);
  await page.locator(".b").first().click();
  assert.match(await detail(page).innerText(), /<\/script><script>/);
  await page.screenshot({ path: join(directory, "hostile.png"), fullPage: true });
});

await test("two thousand derivations are no burden", "large", async (page, file) => {
  assert.ok(statSync(file).size < 2_000_000, `${statSync(file).size}`);
  assert.ok(!/https?:\/\/(?!www\.w3\.org)/.test(readFileSync(file, "utf8")));
  const began = Date.now();
  await page.locator("#search").fill("package-1999");
  assert.equal(await rows(page).count(), 1);
  await page.locator("#b1999 rect").click();
  assert.match(await detail(page).innerText(), /package-1999-1\.0/);
  assert.ok(Date.now() - began < 5000, `${Date.now() - began} ms`);
  await page.screenshot({ path: join(directory, "large.png") });
});

await browser.close();
process.exit(failed === 0 ? 0 : 1);
