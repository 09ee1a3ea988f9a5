# syntax=docker/dockerfile:1
# Heads and data nodes: no CUDA. From the repository's root:
#   docker build -f infra/docker/cpu.Dockerfile -t REGISTRY/poma3d-cpu:VERSION .
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS build
ARG TORCH=2.13.0
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/poma
ENV PATH=/opt/poma/bin:$PATH
# Its dependencies are in the lock; the build itself comes by version from PyTorch's own index, which has no hashes
# that a lock for the ordinary index could hold.
RUN pip install --no-deps --index-url ${TORCH_INDEX} torch==${TORCH}
COPY infra/docker/requirements-*.lock /tmp/
RUN pip install --no-deps --require-hashes -r /tmp/requirements-cpu.lock
# DeepSpeed compiles its operators when they are wanted, and on CPU nodes none is.
RUN DS_BUILD_OPS=0 pip install --no-deps --require-hashes --no-build-isolation -r /tmp/requirements-build.lock
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY platform platform
COPY poma3d poma3d
COPY jobs jobs
RUN pip install --no-deps --no-build-isolation .

FROM python:${PYTHON}
# The head's container runs Ray's autoscaler, which reaches the other nodes by SSH and rsync.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends openssh-client rsync \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 --shell /bin/bash poma
COPY --from=build /opt/poma /opt/poma
COPY --chown=poma:poma jobs/configs /home/poma/configs
ENV PATH=/opt/poma/bin:$PATH \
    DS_ACCELERATOR=cpu \
    PYTHONUNBUFFERED=1 \
    RAY_AUTH_MODE=token
USER poma
WORKDIR /home/poma
CMD ["poma", "--help"]
