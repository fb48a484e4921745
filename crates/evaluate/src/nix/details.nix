# What is told of a derivation on demand, as nix-eval-jobs tells it. `apply` is null or a function.
{ meta, apply, constituents }:
value:
let
  # What `nix-env` would show of `meta` (nix `src/libexpr/get-drvs.cc`, `checkMeta`).
  isPlain = value:
    if builtins.isList value then builtins.all isPlain value
    else if builtins.isAttrs value then !(value ? outPath) && builtins.all isPlain (builtins.attrValues value)
    else builtins.isInt value || builtins.isBool value || builtins.isString value || builtins.isFloat value;
  all = value.meta or { };
  plain = builtins.filter (name: isPlain all.${name}) (builtins.attrNames all);
  described = builtins.listToAttrs (map (name: { inherit name; value = all.${name}; }) plain);

  # Hydra's aggregates: derivations, and names of jobs.
  isAggregate = value._hydraAggregate or false;
  members =
    if isAggregate then value.constituents or (throw "derivation must have a 'constituents' attribute")
    else [ ];
  context = builtins.getContext (toString members);
in
(if meta then { meta = if plain == [ ] then null else described; } else { })
// (if apply == null then { } else {
  extraValue =
    let applied = apply value;
    in if builtins.isAttrs applied then applied else throw "--apply needs to evaluate to an attribute set, and gives a ${builtins.typeOf applied}";
})
// (if !constituents then { } else {
  constituents = builtins.filter (path: context.${path} ? outputs) (builtins.attrNames context);
  namedConstituents = builtins.filter builtins.isString members;
  globConstituents = isAggregate && value._hydraGlobConstituents or false;
})
