# The directory is there. The user's systemd starts on request, as docs/what-jobs-find.md says.
echo "directory: $XDG_RUNTIME_DIR $(stat --format='%U %a' "$XDG_RUNTIME_DIR")"
touch "$XDG_RUNTIME_DIR/made"
sudo loginctl enable-linger "$(id -un)"
sudo systemctl start "user@$(id -u).service"
systemctl --user is-system-running --wait || systemctl --user --failed
systemd-run --user --quiet --wait --pipe sh -c 'echo "managed as $(id -un) in $XDG_RUNTIME_DIR"'
