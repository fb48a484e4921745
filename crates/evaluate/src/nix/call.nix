# Calls functions as Nix does it on the way along an attribute path (nix `src/libexpr/eval.cc`,
# `autoCallFunction`): those with named arguments, if each has a value. `given` are those of `--arg` and `--argstr`.
given:
let
  call = value:
    if builtins.isFunction value then callFunction value
    else if builtins.isAttrs value && value ? __functor then call (value.__functor value)
    else value;
  callFunction = value:
    let
      wanted = builtins.functionArgs value;
      shape = builtins.toXML value;
      has = part: builtins.length (builtins.split part shape) > 1;
      missing = builtins.filter (name: !wanted.${name} && !(given ? ${name})) (builtins.attrNames wanted);
    in
    # Without a name it cannot be told from `x: …` but by its printed form.
    if wanted == { } && !(has "<attrspat") then value
    else if missing != [ ] then
      throw "cannot evaluate a function that has an argument without a value ('${builtins.head missing}'); give it with `--arg NAME EXPR` or `--argstr NAME TEXT`"
    else if given != { } && has "<attrspat [^>]*ellipsis=" then value given
    else value (builtins.intersectAttrs wanted given);
in call
