echo "driver $(docker info --format '{{.Driver}}')"
echo "bridged $(docker run --rm base wget -q -T 20 -O - http://anybody.test/)"
for address in $CLOSED; do
    docker run --rm base wget -q -T 3 -O - "http://$address/" || echo "closed $address"
done
docker run --detach --name server --publish 8000:80 base sh -c 'echo hello >/tmp/x; httpd -f -h /tmp' >/dev/null
for _ in $(seq 100); do
    busybox wget -q -O - http://127.0.0.1:8000/x && break
    sleep 0.1
done
echo "root of $(docker exec server cat /proc/self/uid_map)"
docker rm --force server >/dev/null
