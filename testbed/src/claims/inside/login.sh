# A login at the container's own sshd, as tests of deployment tools do.
mkdir -p -m 0700 ~/.ssh
ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519
cp ~/.ssh/id_ed25519.pub ~/.ssh/authorized_keys
ssh -o BatchMode=yes -o StrictHostKeyChecking=no -o LogLevel=ERROR "$(id -un)@localhost" \
    'echo "logged in as $(id -un)"' 2>&1
