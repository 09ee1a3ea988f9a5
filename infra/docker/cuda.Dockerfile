# syntax=docker/dockerfile:1
# GPU nodes. From the repository's root:
#   docker build -f infra/docker/cuda.Dockerfile -t REGISTRY/poma3d-cuda:VERSION .
# and for EFA on AWS besides:
#   --build-arg WITH_EFA=1 --build-arg EFA_VERSION=... --build-arg EFA_SHA256=...   (the release that you have checked)
ARG PYTHON=3.11-bookworm
ARG PYTHON_RUNTIME=3.11-slim-bookworm
# The compiler's version is that of the CUDA libraries in requirements-cuda.lock; a test compares them.
ARG CUDA=13.0

FROM nvidia/cuda:${CUDA}.0-devel-ubuntu22.04 AS compiler
# The client that asks NCCL's threads which ranks of a collective are missing; the wheel of NCCL does not carry it, and
# the image's own is older than the options that Ray gives it. A test compares the version with the wheel's.
ARG NCCL=2.29
RUN apt-get update \
    && apt-get install --yes --no-install-recommends --allow-change-held-packages \
        "libnccl2=${NCCL}.*" "libnccl-dev=${NCCL}.*" \
    && test -x /usr/bin/ncclras \
    && rm -rf /var/lib/apt/lists/*

FROM python:${PYTHON} AS build
ARG CUDA
# A100, H100 and H200.
ARG ARCHITECTURES="8.0;9.0"
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/poma
ENV PATH=/opt/poma/bin:$PATH
COPY infra/docker/requirements-*.lock /tmp/
RUN pip install --no-deps --require-hashes -r /tmp/requirements-cuda.lock
# DeepSpeed's operators are compiled here and not on the nodes, where there is no compiler and minutes cost.
COPY --from=compiler /usr/local/cuda-${CUDA} /usr/local/cuda
RUN CUDA_HOME=/usr/local/cuda PATH=/usr/local/cuda/bin:$PATH TORCH_CUDA_ARCH_LIST="${ARCHITECTURES}" \
    DS_BUILD_OPS=0 DS_BUILD_FUSED_ADAM=1 DS_BUILD_CPU_ADAM=1 DS_BUILD_UTILS=1 \
    pip install --no-deps --require-hashes --no-build-isolation -r /tmp/requirements-build.lock
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY platform platform
COPY poma3d poma3d
COPY jobs jobs
RUN pip install --no-deps --no-build-isolation .

FROM python:${PYTHON_RUNTIME}
ARG WITH_EFA=0
ARG EFA_VERSION=
ARG EFA_SHA256=
RUN apt-get update \
    && apt-get install --yes --no-install-recommends openssh-client rsync \
    && if [ "${WITH_EFA}" = 1 ]; then \
        apt-get install --yes --no-install-recommends ca-certificates curl \
        && cd /tmp \
        && curl --fail --silent --show-error --location --output efa.tar.gz \
            "https://efa-installer.amazonaws.com/aws-efa-installer-${EFA_VERSION}.tar.gz" \
        && echo "${EFA_SHA256}  efa.tar.gz" | sha256sum --check \
        && tar --extract --gzip --file efa.tar.gz \
        && cd aws-efa-installer \
        && ./efa_installer.sh --yes --skip-kmod --skip-limit-conf --no-verify \
        && rm -rf /tmp/efa.tar.gz /tmp/aws-efa-installer; \
    fi \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 --shell /bin/bash poma
COPY --from=build /opt/poma /opt/poma
# Ray's detector of hangs in NCCL calls it.
COPY --from=compiler /usr/bin/ncclras /usr/local/bin/ncclras
COPY --chown=poma:poma jobs/configs /home/poma/configs
# NVIDIA's container runtime reads the two variables; the libraries of CUDA itself are wheels of the lock.
ENV PATH=/opt/poma/bin:$PATH \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONUNBUFFERED=1 \
    RAY_AUTH_MODE=token
USER poma
WORKDIR /home/poma
CMD ["poma", "--help"]
