# The shipped image with one more plugin, whose project is the context; `deploy/image/plugin` builds it.
ARG IMAGE=brigantine
FROM ${IMAGE} AS wheel
USER root
COPY . /plugin
# The environment has no pip; the Python that it is made of has one.
RUN "$(readlink -f /app/.venv/bin/python)" -m pip wheel --quiet --no-deps --wheel-dir /wheels /plugin

FROM ${IMAGE}
USER root
# What the plugin needs comes with it, in the versions that were tested together. Not what brigantine needs: the image
# has it, but for what `slim` took, and in the CUDA image onnxruntime-gpu stands for onnxruntime.
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip="$(readlink -f /app/.venv/bin/python) -m pip --python /app/.venv/bin/python" \
    && install="$pip install --quiet --no-cache-dir --constraint /app/constraints.txt" \
    && $install --no-deps /wheels/*.whl \
    && sed -n 's/^Requires-Dist: //p' /app/.venv/lib/python3*/site-packages/"$(ls /wheels | cut -d- -f1,2)".dist-info/METADATA \
    | grep -vE '^brigantine *([(;<>=!~]|$)' \
    | xargs -d '\n' --no-run-if-empty $install \
    && ! $pip check | grep 'requirement brigantine'
USER 1034:1034
