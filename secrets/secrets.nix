# agenix's rules: the keys that can open each file. Operators use their SSH keys, hosts their host keys.
let
  operators = builtins.attrValues (import ../hosts/operators.nix);

  # Output of `ssh-keyscan -t ed25519 ADDRESS` for an installed host. These two are placeholders, whose
  # private halves were deleted.
  hosts = {
    runner-01 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIH3a6xFhaNSimwaMfX6xEPG6K+PM+IPXfgrmNfdYIjYT";
    runner-02 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBCvaigtE6q+kIGqyWvCfOPPsMqMCVi09wDivQRv4LNG";
  };
in
{
  # The GitHub token, for all hosts. It is armored, so that a diff shows encrypted text.
  "github-runner.age" = {
    publicKeys = operators ++ builtins.attrValues hosts;
    armor = true;
  };
}
