# SSH public keys of operators, by name. They may log in as root and open the secrets. common.nix and
# secrets/secrets.nix read this file.
#
# This key is a placeholder, whose private half was deleted when it was made. Replace it with yours before the
# first deploy, because a host without your key locks you out.
{
  placeholder = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIM+548trH/hJfi3xXXTpHhEzOh4tvckWa1N3QLXdzBp/ placeholder";
}
