# The calls that GitHub's runner makes for a job with `container:` (DockerCommandManager and
# ContainerOperationProvider of actions/runner), and for a step with `uses: docker://base`.
label=6b2e1d
mkdir -p "$RUNNER_TEMP/_github_home" externals
docker version --format '{{.Server.APIVersion}}' >/dev/null
docker network prune --force --filter "label=$label" >/dev/null
network=github_network_$GITHUB_RUN_ID
docker network create --label $label "$network" >/dev/null
id=$(docker create --name job --label $label --workdir /__w --network "$network" \
    -e HOME=/github/home -e GITHUB_ACTIONS=true -e CI=true \
    -v /var/run/docker.sock:/var/run/docker.sock -v "$PWD:/__w" -v "$PWD/externals:/__e:ro" \
    -v "$RUNNER_TEMP:/__w/_temp" -v "$RUNNER_TEMP/_github_home:/github/home" \
    --entrypoint tail base -f /dev/null)
docker start "$id" >/dev/null
docker ps --all --filter "id=$id" --filter status=running --no-trunc --format '{{.ID}}' | grep -qx "$id"
service=$(docker create --label $label --network "$network" --network-alias db base \
    sh -c 'mkdir /www && echo served >/www/index.html && httpd -f -h /www')
docker start "$service" >/dev/null
cat >"$RUNNER_TEMP/step.sh" <<'END'
echo "step in $PWD with $HOME as $(id -u): $(wget -q -T 20 -O - http://anybody.test/)"
for _ in $(seq 100); do said=$(wget -q -T 20 -O - http://db/) && break; sleep 0.1; done
echo "service $said"
echo made >/__w/made-in-step
END
docker exec -i --workdir /__w "$id" sh -e /__w/_temp/step.sh
echo "outside $(cat made-in-step)"
docker rm --force "$id" "$service" >/dev/null
docker network rm "$network" >/dev/null
docker run --name action --label $label --workdir /github/workspace --rm -e GITHUB_WORKSPACE=/github/workspace \
    -v /var/run/docker.sock:/var/run/docker.sock -v "$RUNNER_TEMP/_github_home:/github/home" -v "$PWD:/github/workspace" \
    base cat made-in-step | sed 's/^/action sees /'
