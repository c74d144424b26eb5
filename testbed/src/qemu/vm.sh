#!/bin/bash
# Boots a virtual machine from the test host's root filesystem, with Debian's kernel and without /dev/kvm,
# and runs enforce.py in it. The console is this script's output.
# DIR is a directory that no other program uses; KERNEL the unpacked kernel package; HOST a root filesystem;
# IMAGE a prepared image; CONTROLLER and SIM programs; ENFORCE the script.
set -euo pipefail

: "$DIR" "$KERNEL" "$HOST" "$IMAGE" "$CONTROLLER" "$SIM" "$ENFORCE"
root=$DIR/root
initrd=$DIR/initrd
mkdir -p "$DIR"
cd "$DIR"
rm -rf "$root" "$initrd" disk initrd.gz

modules_of_kernel=$KERNEL/lib/modules
[ -d "$modules_of_kernel" ] || modules_of_kernel=$KERNEL/usr/lib/modules
version=$(basename "$modules_of_kernel"/*)

# Shared files: nothing below writes into one, everything replaces it.
cp --archive --link "$HOST" "$root"
mkdir -p "$root/usr/lib/modules" "$root/var/lib/runner-images" "$root/etc/runner-controller"
cp --archive "$modules_of_kernel/$version" "$root/usr/lib/modules/"
depmod --basedir "$root" "$version"
cp --archive --link "$IMAGE" "$root/var/lib/runner-images/debian"
strip -o "$root/usr/local/bin/runner-controller" "$CONTROLLER"
strip -o "$root/usr/local/bin/github-sim" "$SIM"
install --mode=0755 "$ENFORCE" "$root/usr/local/bin/enforce"
(umask 077 && echo token-of-the-virtual-machine >"$root/etc/runner-controller/token")
cat >"$root/etc/systemd/system/github-sim.service" <<'END'
[Service]
NetworkNamespacePath=/run/netns/internet
LoadCredential=token:/etc/runner-controller/token
ExecStart=/usr/local/bin/github-sim --listen 198.51.100.7:8080 --token-file %d/token --scope acme/widgets --scope acme
END
cat >"$root/etc/systemd/system/enforce.service" <<'END'
[Unit]
After=multi-user.target
SuccessAction=poweroff-immediate
FailureAction=poweroff-immediate
[Service]
Type=oneshot
ExecStart=/usr/local/bin/enforce
END
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -sf ../enforce.service "$root/etc/systemd/system/multi-user.target.wants/"

mkdir -p "$initrd"/{dev,root,modules}
cp "$IMAGE/usr/bin/busybox" "$initrd/busybox"
# In the order in which they need each other, and plain: busybox unpacks none.
modules=()
while read -r _ file _; do
    name=$(basename "${file%.xz}")
    [ ! -e "$initrd/modules/$name" ] || continue
    case $file in *.xz) xz --decompress --stdout "$file" ;; *) cat "$file" ;; esac >"$initrd/modules/$name"
    modules+=("$name")
done < <(for wanted in virtio_pci virtio_blk ext4; do
    modprobe --dirname "$root/usr" --set-version "$version" --show-depends $wanted | grep ^insmod
done)
cat >"$initrd/init" <<END
#!/busybox sh
for module in ${modules[*]}; do
    /busybox insmod /modules/\$module
done
/busybox mount -t devtmpfs dev /dev
tries=0
until [ -b /dev/vda ] || [ \$tries = 600 ]; do
    /busybox sleep 0.1
    tries=\$((tries + 1))
done
/busybox mount -t ext4 /dev/vda /root
/busybox mount --move /dev /root/dev
exec /busybox switch_root /root /usr/lib/systemd/systemd
END
chmod 755 "$initrd/init"
(cd "$initrd" && find . | cpio --create --format=newc --quiet | gzip -1) >initrd.gz

mke2fs -q -t ext4 -d "$root" disk 3G >&2
rm -rf "$root" "$initrd"
# A /dev/kvm that is there may still not work; this takes any machine. The deadline is a net under the
# script's own.
setpriv --pdeathsig=TERM timeout --kill-after=5 2400 qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 2048 \
    -nographic -no-reboot -net none -kernel "$KERNEL"/boot/vmlinuz-* -initrd initrd.gz \
    -append "console=ttyS0 loglevel=1 systemd.show_status=false panic=-1 rw cgroup_no_v1=all" \
    -drive file=disk,if=virtio,format=raw,cache=unsafe </dev/null
rm -f disk initrd.gz
