# An answer as text after a mark. What its text comes from goes with it where it is not a derivation alone.
mark: value: reply:
let text = builtins.toJSON reply;
in mark + (
  if builtins.elem reply.kind [ "workUnit" "stdAction" "program" ]
  then builtins.toJSON (reply // { context = builtins.attrNames (builtins.getContext text); })
  else text
)
