# One image for every process: the argument is the module to run, such as `users_service migrate`.

FROM python:3.13-slim-bookworm AS packages
RUN python -m venv --without-pip /opt/venv
COPY requirements-image.txt .
RUN pip --python /opt/venv install --no-cache-dir --disable-pip-version-check --only-binary :all: \
    --require-hashes --requirement requirements-image.txt

FROM python:3.13-slim-bookworm
# A number, so that an orchestrator sees that it is not root. /data is what a volume there begins as.
RUN groupadd --gid 10001 app \
 && useradd --uid 10001 --gid app --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin app \
 && install --directory --owner app --group app --mode 0700 /data
COPY --from=packages /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
# What that is, .dockerignore says.
COPY . .
# Written now, since a process can't: its file system is read-only.
RUN python -m compileall -q . \
 && mkdir /usr/share/sbom && python -m services.sbom > /usr/share/sbom/python.cdx.json
USER 10001:10001
ENTRYPOINT ["python", "-m"]
CMD ["gateway"]

ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Kafka-native onboarding" \
      org.opencontainers.image.description="Services that share facts over Kafka without losing one" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.base.name="python:3.13-slim-bookworm" \
      kafka-native-onboarding.sbom="/usr/share/sbom/python.cdx.json"
