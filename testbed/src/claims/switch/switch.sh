# Switches the host to the configuration $1, in the order of NixOS (main.rs of switch-to-configuration-ng in
# nixpkgs), and ends with status 4 where that program does.
set -eu
status=0
units=/etc/systemd/system
next=/run/testbed/generation
rm -rf $next
runner-controller units --config "$1" --install-root $next >/dev/null

# Compare units. The module restarts its services in one step, and neither slots' units nor slices.
restart=
for unit in $next$units/*.service; do
  name=${unit##*/}
  case $name in *@.service) continue ;; esac
  cmp -s "$unit" $units/"$name" || restart="$restart $name"
done

# Activate: all files of the new configuration, and no file of a removed pool.
cp -r --remove-destination $next/etc/. /etc/
cp --remove-destination "$1" /etc/runner-controller/config.toml
for unit in $units/runner-*@.service $units/runners-*.slice; do
  [ -e $next"$unit" ] || rm "$unit"
done

systemctl reset-failed
systemctl daemon-reload
# sysinit-reactivation.target
systemd-tmpfiles --create
/usr/lib/systemd/systemd-sysctl
systemctl restart $restart || status=4
systemctl start multi-user.target || status=4

# That program waits until the bus is quiet for as long.
sleep 0.25
failed=$(systemctl list-units --state=failed --plain --no-legend)
[ -z "$failed" ] || status=4
echo "restarted:$restart"
echo "failed: $failed"
exit $status
