# What is at an attribute path below a value. With `wanted` null all names of a set are told, else only those of
# `wanted` that exist; with "program" it is what `nix run` would run, with "name" only what a derivation is called.
# `finish` makes an answer of the value and what there is to say of it, `details` says more of a derivation, `call` is
# what is done to a value before it is looked at.
finish: details: call: root: path: wanted:
let
  isDerivation = value: builtins.isAttrs value && (value.type or null) == "derivation";

  at = value: let called = call value; in below called;
  below = value: path:
    if path == [ ] then finish value
      (if wanted == "program" then program value else if wanted == "name" then nameOf value else describe value)
    # The actions of std are in a list.
    else if isStd && builtins.isList value then at (builtins.elemAt value (builtins.fromJSON (builtins.head path))) (builtins.tail path)
    else if builtins.isAttrs value && value ? ${builtins.head path}
    then at value.${builtins.head path} (builtins.tail path)
    else finish null {
      kind = "missing";
      left = builtins.length path;
      type = builtins.typeOf value;
      names = if builtins.isAttrs value then builtins.attrNames value else [ ];
    };

  output = drv: name: {
    inherit name;
    value = (if drv ? ${name} then drv.${name} else drv).outPath or null;
  };

  isStd = builtins.length path > 2 && builtins.head path == "__std" && builtins.elemAt path 1 == "ci";

  # The derivations that something of a string comes from, with the outputs.
  needed = text:
    let context = builtins.getContext text;
    in map (drvPath: { inherit drvPath; inherit (context.${drvPath}) outputs; })
      (builtins.filter (path: context.${path} ? outputs) (builtins.attrNames context));

  program = value:
    let
      main = value.meta.mainProgram or value.pname or (builtins.parseDrvName value.name).name;
      file = if isDerivation value then "${value.outPath}/bin/${main}" else value.program;
    in
    if isDerivation value || (builtins.isAttrs value && value ? program)
    then { kind = "program"; program = file; needs = needed file; }
    else { kind = "other"; type = builtins.typeOf value; };

  # What can be told of a derivation that nixpkgs refuses to evaluate.
  nameOf = value: {
    kind = "name";
    name = value.name or "";
    pname = if value ? pname && value ? version then "${value.pname}-${value.version}" else value.pname or "";
  };

  describe = value:
    if isDerivation value then {
      kind = "derivation";
      inherit (value) name system drvPath;
      outputs = builtins.listToAttrs (map (output value) (value.outputs or [ "out" ]));
      names = if wanted == null then [ ] else builtins.filter (name: value ? ${name}) wanted;
      details = details value;
    }
    else if builtins.isAttrs value && (value.type or null) == "ci-work-unit" then {
      kind = "workUnit";
      findWork =
        let body = value.findWork or null;
        in if builtins.isPath body then builtins.readFile body else body;
      unit = value // {
        findWorkDeps = builtins.mapAttrs (_: dep: { inherit (dep) drvPath; path = dep.outPath; }) (value.findWorkDeps or { });
      };
    }
    else if isStd && builtins.length path == 3 && builtins.isList value then {
      kind = "stdActions";
      count = builtins.length value;
    }
    else if isStd && builtins.length path == 4 && builtins.isAttrs value then {
      kind = "stdAction";
      action = value;
      needs = if value.proviso or null == null then [ ] else needed "${value.proviso}";
    }
    else if builtins.isAttrs value then {
      kind = "set";
      names =
        if wanted == null then builtins.attrNames value
        else builtins.filter (name: value ? ${name}) wanted;
      recurse = value.recurseForDerivations or null;
    }
    else { kind = "other"; type = builtins.typeOf value; };
in at root path
