# The same install as the README's first line, in two stages: the second has no build tools and no source tree.
# Run with a read-only root: docker run --read-only --tmpfs /tmp -v breachwatch-state:/var/lib/breachwatch \
#   -v /etc/breachwatch:/etc/breachwatch:ro -v /var/log:/var/log:ro IMAGE
FROM python:3.12-slim AS build
WORKDIR /src
RUN python3 -m venv /opt/breachwatch
COPY requirements/build.txt requirements/run.txt requirements/
RUN /opt/breachwatch/bin/pip install -q --no-cache-dir --require-hashes -r requirements/build.txt -r requirements/run.txt
COPY pyproject.toml README.md LICENSE ./
COPY breachwatch breachwatch
COPY rules rules
COPY playbooks playbooks
RUN /opt/breachwatch/bin/pip install -q --no-cache-dir --no-build-isolation --no-deps .

FROM python:3.12-slim
# adm may read /var/log on Debian hosts: the group has the same number (4) there and here
RUN useradd --system --uid 10001 --groups adm --no-create-home --shell /usr/sbin/nologin breachwatch \
 && install -d -o breachwatch -g breachwatch -m 0700 /var/lib/breachwatch
COPY --from=build /opt/breachwatch /opt/breachwatch
ENV PATH=/opt/breachwatch/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    BREACHWATCH_STATE__DIRECTORY=/var/lib/breachwatch
USER breachwatch
VOLUME /var/lib/breachwatch
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["breachwatch", "status"]
ENTRYPOINT ["breachwatch", "run"]
