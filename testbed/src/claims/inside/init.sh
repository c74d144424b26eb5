# Docker's init as process 1, by the command and by compose, and the status of its child.
docker run --rm --init base sh -c 'echo "run: $(cat /proc/1/comm)"'
cat >compose.yaml <<'END'
services:
  one:
    image: base
    init: true
    command: ["sh", "-c", "echo compose: $$(cat /proc/1/comm)"]
END
docker compose --progress quiet up --no-log-prefix 2>&1
docker compose --progress quiet down 2>&1
docker run --rm --init base sh -c 'exit 3' || echo "exit: $?"
