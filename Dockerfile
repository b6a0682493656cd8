# The three programs on a slim Debian, as a user without rights. One image; the command says which program.
#   docker build -t swiftlet .
#   docker run --rm -p 8080:8080 -p 3478:3478/udp swiftlet swiftlet up --signaling 0.0.0.0:8080 --allow-anonymous \
#       --advertise YOUR-ADDRESS:3478
# --allow-anonymous is for trying it out; --api-keys FILE asks callers for a key.
FROM swift:6.3-bookworm AS build
RUN apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
    pkg-config libssl-dev libsrtp2-dev liburing-dev libopus-dev libspeexdsp-dev libnghttp2-dev libhiredis-dev libusrsctp-dev \
    libmaxminddb-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Package.swift ./
COPY Sources Sources
COPY Tests Tests
RUN swift build -c release --static-swift-stdlib --product swiftlet-relay \
    && swift build -c release --static-swift-stdlib --product swiftlet-transceiver \
    && swift build -c release --static-swift-stdlib --product swiftlet

FROM debian:bookworm-slim
RUN apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
    ca-certificates curl libssl3 libsrtp2-1 liburing2 libopus0 libspeexdsp1 libnghttp2-14 libhiredis0.14 libusrsctp2 \
    libmaxminddb0 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --no-create-home --shell /usr/sbin/nologin swiftlet
COPY --from=build /src/.build/release/swiftlet /src/.build/release/swiftlet-relay /src/.build/release/swiftlet-transceiver /usr/local/bin/
USER swiftlet
EXPOSE 3478/udp 8080
# Both programs answer /healthz: the transceiver on its signaling address, the relay on --metrics.
ENV SWIFTLET_HEALTH=http://127.0.0.1:8080/healthz
HEALTHCHECK --interval=10s --timeout=2s --start-period=5s CMD curl -fsS -o /dev/null "$SWIFTLET_HEALTH" || exit 1
STOPSIGNAL SIGTERM
CMD ["swiftlet", "up", "--signaling", "0.0.0.0:8080", "--allow-anonymous"]
