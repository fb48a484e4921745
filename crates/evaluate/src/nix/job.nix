# What nix-eval-jobs would find at an attribute path below a value, as JSON. With `wanted` a set, the derivation there
# is made anew, so that it needs these constituents: `{ aggregate = [ { drvPath output } … ]; }`.
finish: details: call: force: root: path: wanted:
let
  isDerivation = value: builtins.isAttrs value && (value.type or null) == "derivation";

  at = value: let called = call value; in below called;
  below = value: path:
    if path == [ ] then describe value
    else at value.${builtins.head path} (builtins.tail path);

  output = value: name: {
    inherit name;
    value = (if value ? ${name} then value.${name} else value).outPath or null;
  };

  derivationReply = value: shown: {
    kind = "derivation";
    inherit (shown) name drvPath;
    system = shown.system or "unknown";
    outputs = builtins.listToAttrs (map (output shown) (shown.outputs or [ "out" ]));
    details = details value;
  };

  # Constituents become inputs by the context of a string, and the environment stays as it is.
  aggregate = value: constituents:
    let
      context = builtins.listToAttrs
        (map (constituent: { name = constituent.drvPath; value.outputs = [ constituent.output ]; }) constituents);
      given = value.drvAttrs or (throw "an aggregate with named constituents has to be made by `derivation`");
    in derivation (given // { builder = builtins.appendContext "" context + given.builder; });

  recurse = value:
    let asked = value.recurseForDerivations;
    in if force then true
    else if !(value ? recurseForDerivations) then path == [ ]
    else if builtins.isBool asked then asked
    else throw "`recurseForDerivations` is a ${builtins.typeOf asked}, where a Boolean is expected";

  describe = value:
    if isDerivation value then
      finish value (derivationReply value (if wanted == null then value else aggregate value wanted.aggregate))
    else if builtins.isAttrs value then
      finish value { kind = "set"; names = if recurse value then builtins.attrNames value else [ ]; }
    else finish value { kind = "other"; type = builtins.typeOf value; };
in at root path
