# Everything that a job can see of its system, except for its layer and its name.
echo "the census begins"
echo "state: $(systemctl is-system-running)"
for unit in dbus.socket docker.socket ssh.service systemd-journald.service systemd-tmpfiles-setup.service timers.target; do
    echo "$unit: $(systemctl is-active "$unit")"
done
stat --format='%n %U:%G %a' / /tmp /var/tmp /dev/shm /run /run/lock /run/user /run/user/* /tmp/.X11-unix /home/runner /dev/log \
    /run/docker.sock /var/lib/docker
cut -d ' ' -f 2 /proc/self/mounts | grep -v ^/run/credentials | sort | sed 's/^/mount: /'
id
umask
ulimit -a
echo "root: $(sudo id -un)"
getent hosts localhost
cat /etc/resolv.conf
env | cut -d = -f 1 | sort | sed 's/^/variable: /'
grep -E '^(Cap|Seccomp|NoNewPrivs)' /proc/self/status
cat /proc/self/cgroup
logger --tag census hello
sudo journalctl --sync
echo "journal: $(sudo journalctl --output=cat --identifier=census)"
systemctl --failed --plain --no-legend
systemctl list-units --plain --no-legend --type=service,socket,mount,target,timer --state=active,activating |
    cut -d ' ' -f 1 | grep -v ^github-runner | sort | sed 's/^/unit: /'
echo "the census is complete"
