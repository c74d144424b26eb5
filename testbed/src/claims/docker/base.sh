# Every job of these claims begins so: an image from a tar, because no registry is reachable.
set -eu
image() {
    local name
    mkdir -p rootfs/bin rootfs/tmp
    cp /usr/bin/busybox rootfs/bin/
    for name in $(busybox --list); do
        [ "$name" = busybox ] || ln -s busybox "rootfs/bin/$name"
    done
    tar -C rootfs -c . | docker import - base >/dev/null
    rm -rf rootfs
}
image
