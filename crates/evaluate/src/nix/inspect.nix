# What is at an attribute path below a value, as JSON. With `wanted` null all names of a set are told,
# else only those of `wanted` that exist. `call` is what is done to a value before it is looked at.
mark: call: root: path: wanted:
let
  isDerivation = value: builtins.isAttrs value && (value.type or null) == "derivation";

  at = value: let called = call value; in below called;
  below = value: path:
    if path == [ ] then describe value
    else if builtins.isAttrs value && value ? ${builtins.head path}
    then at value.${builtins.head path} (builtins.tail path)
    else {
      kind = "missing";
      left = builtins.length path;
      type = builtins.typeOf value;
      names = if builtins.isAttrs value then builtins.attrNames value else [ ];
    };

  output = drv: name: {
    inherit name;
    value = (if drv ? ${name} then drv.${name} else drv).outPath or null;
  };

  describe = value:
    if isDerivation value then {
      kind = "derivation";
      inherit (value) name system drvPath;
      outputs = builtins.listToAttrs (map (output value) (value.outputs or [ "out" ]));
      names = if wanted == null then [ ] else builtins.filter (name: value ? ${name}) wanted;
    }
    else if builtins.isAttrs value && (value.type or null) == "ci-work-unit" then {
      kind = "workUnit";
      # Each is looked at by itself: one that does not evaluate is no fault of the others.
      members = builtins.filter (name: name != "type" && name != "findWorkDeps") (builtins.attrNames value);
      needs = builtins.attrNames (value.findWorkDeps or { });
    }
    else if builtins.isAttrs value then {
      kind = "set";
      names =
        if wanted == null then builtins.attrNames value
        else builtins.filter (name: value ? ${name}) wanted;
      recurse = value.recurseForDerivations or null;
    }
    else { kind = "other"; type = builtins.typeOf value; };
in mark + builtins.toJSON (at root path)
