mkdir context
echo 'from the context' >context/file
cat >context/Dockerfile <<'END'
FROM base AS first
COPY file /file
RUN tr a-z A-Z </file >/loud && wget -q -T 20 -O /peer http://anybody.test/
FROM base
COPY --from=first /loud /peer /
CMD ["cat", "/loud", "/peer"]
END
for kit in 0 1; do
    DOCKER_BUILDKIT=$kit docker build --quiet --tag "built-$kit" context >/dev/null
    docker run --rm "built-$kit" | sed "s/^/kit $kit: /"
done
