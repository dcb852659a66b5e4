# One image for each job: `docker build --target pipeline|pipeline-gcp|serving|serving-gcp|trainer|trainer-deep|dataproc .`
# Each holds its own lock and nothing else; none listens beyond its container unless a port is published.

# The same base every time: --build-arg BASE=python@sha256:…, whose digest `docker buildx imagetools inspect` tells.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE} AS base
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1 \
    DO_NOT_TRACK=true \
    DAGSTER_DISABLE_TELEMETRY=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    GX_ANALYTICS_ENABLED=false \
    CUSTSEG_HOME=/home/custseg/data
RUN useradd --create-home --uid 10001 --user-group custseg \
    && install --directory --owner=custseg --group=custseg /home/custseg/data
WORKDIR /home/custseg

# The build backend, locked like everything else, stays behind in this stage.
FROM base AS wheel
WORKDIR /src
COPY requirements/build.txt /tmp/build.txt
RUN pip install --require-hashes -r /tmp/build.txt
COPY pyproject.toml README.md LICENSE dagster.yaml ./
COPY custseg_assets custseg_assets
COPY custseg_serving custseg_serving
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .

# `custseg run`, with the log mounted and the home on a volume:
#   docker run -v shop-home:/home/custseg/data -v "$PWD/orders.csv:/orders.csv:ro" IMAGE run --source /orders.csv
# `custseg ui` has no login and listens on loopback only: give it the host's network to look at it from the host.
FROM base AS pipeline
COPY requirements/pipeline.txt /tmp/pipeline.txt
RUN pip install --require-hashes -r /tmp/pipeline.txt
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels pip install --no-deps --no-index /wheels/*.whl
USER 10001:10001
VOLUME /home/custseg/data
ENTRYPOINT ["custseg"]
CMD ["--help"]

# The same with Google's libraries, for a home in Google Cloud; see docs/gcp.md.
FROM base AS pipeline-gcp
COPY requirements/gcp.txt /tmp/gcp.txt
RUN pip install --require-hashes -r /tmp/gcp.txt
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels pip install --no-deps --no-index /wheels/*.whl
USER 10001:10001
VOLUME /home/custseg/data
ENTRYPOINT ["custseg"]
CMD ["--help"]

# The service reads the home's releases: mount the pipeline's volume read-only, name a writable folder by
# `--prediction-log`, and the keys by CUSTSEG_KEYS where they are not in the home. It listens on every address of the
# container, so what reaches it is what the published port lets through.
FROM base AS serving
COPY requirements/serving.txt /tmp/serving.txt
RUN pip install --require-hashes -r /tmp/serving.txt
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels pip install --no-deps --no-index /wheels/*.whl
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
ENTRYPOINT ["custseg-serving"]
CMD ["--host", "0.0.0.0", "--port", "8080"]

# The same following the releases in the bucket that CUSTSEG_FOLLOW names.
FROM base AS serving-gcp
COPY requirements/serving-gcp.txt /tmp/serving-gcp.txt
RUN pip install --require-hashes -r /tmp/serving-gcp.txt
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels pip install --no-deps --no-index /wheels/*.whl
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
ENTRYPOINT ["custseg-serving"]
CMD ["--host", "0.0.0.0", "--port", "8080"]

# Started by a Vertex AI custom job, or by hand with the same arguments.
FROM base AS trainer
COPY requirements/trainer.txt /tmp/trainer.txt
RUN pip install --require-hashes -r /tmp/trainer.txt
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels pip install --no-deps --no-index /wheels/*.whl
USER 10001:10001
ENTRYPOINT ["python", "-m", "custseg_assets.trainer"]

# The same with TensorFlow, for `[model] kind = "deep"`. It is the build for CPUs: the network has a few thousand weights.
FROM base AS trainer-deep
COPY requirements/deep.txt /tmp/deep.txt
RUN pip install --require-hashes -r /tmp/deep.txt
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels pip install --no-deps --no-index /wheels/*.whl
USER 10001:10001
ENTRYPOINT ["python", "-m", "custseg_assets.trainer"]

# Driver and executors of a batch of Dataproc Serverless, which brings Spark and Java, starts the container its own way,
# needs procps and tini there, and runs everything as user 1099, whatever stands here; see docs/spark.md.
FROM base AS dataproc
RUN apt-get update && apt-get install --yes --no-install-recommends procps tini && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 1099 spark && useradd --uid 1099 --gid 1099 --create-home spark
ENV PYSPARK_PYTHON=/usr/local/bin/python
COPY requirements/trainer.txt /tmp/trainer.txt
RUN pip install --require-hashes -r /tmp/trainer.txt
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels pip install --no-deps --no-index /wheels/*.whl
USER 10001:10001
ENTRYPOINT ["python", "-m", "custseg_assets.gcp.classify_job"]
