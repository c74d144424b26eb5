# agenix's rules: who can open which file. Operators by their own SSH keys, hosts by their host keys.
let
  operators = builtins.attrValues (import ../hosts/operators.nix);

  # `ssh-keyscan -t ed25519 ADDRESS`, once the host is there. These two are placeholders whose private
  # halves were thrown away.
  hosts = {
    runner-01 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIH3a6xFhaNSimwaMfX6xEPG6K+PM+IPXfgrmNfdYIjYT";
    runner-02 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBCvaigtE6q+kIGqyWvCfOPPsMqMCVi09wDivQRv4LNG";
  };
in
{
  # The GitHub token, for all hosts. Armored, so that a diff shows that it is one.
  "github-runner.age" = {
    publicKeys = operators ++ builtins.attrValues hosts;
    armor = true;
  };
}
