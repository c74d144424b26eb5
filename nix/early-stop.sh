# NixOS prepares a container in bash before systemd. As process 1, bash would ignore the signal by which the
# host stops the container, and the host would wait for its timeout.
trap 'exit 0' SIGRTMIN+3
