# BreachWatch in a container: the same install as the README, in two stages, run by an account without rights.
#
#   docker build -t breachwatch .
#   docker run --read-only --tmpfs /tmp -v breachwatch-state:/var/lib/breachwatch -v /etc/breachwatch:/etc/breachwatch:ro \
#     -v /var/log:/var/log:ro --group-add "$(getent group adm | cut -d: -f3)" breachwatch
#
# Pin the base image by digest where you build: FROM python:3.11-slim-bookworm@sha256:...
FROM python:3.11-slim-bookworm AS build
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev
WORKDIR /src
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY requirements requirements
COPY breachwatch breachwatch
COPY rules rules
COPY playbooks playbooks
RUN python3 -m venv /opt/breachwatch && /opt/breachwatch/bin/pip install -q --no-cache-dir --require-hashes -r requirements/build.txt -r requirements/run.txt && /opt/breachwatch/bin/pip install -q --no-build-isolation --no-deps .

FROM python:3.11-slim-bookworm
RUN useradd --system --user-group --no-create-home --home-dir /var/lib/breachwatch --shell /usr/sbin/nologin breachwatch \
 && install -d -o breachwatch -g breachwatch -m 0700 /var/lib/breachwatch
COPY --from=build /opt/breachwatch /opt/breachwatch
ENV PATH=/opt/breachwatch/bin:$PATH PYTHONDONTWRITEBYTECODE=1 BREACHWATCH_STATE__DIRECTORY=/var/lib/breachwatch
USER breachwatch
VOLUME /var/lib/breachwatch
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["breachwatch", "status"]
ENTRYPOINT ["breachwatch"]
CMD ["run"]
