# Who may log in as root and open the secrets: SSH public keys, by name. Data alone, read by
# common.nix and by secrets/secrets.nix.
#
# The one here is a placeholder: its private half was thrown away when it was made. Put yours in its
# place before the first deploy: a host without a key of yours locks you out.
{
  placeholder = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIM+548trH/hJfi3xXXTpHhEzOh4tvckWa1N3QLXdzBp/ placeholder";
}
