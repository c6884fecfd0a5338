# One image for every process; the command says which: gateway, worker, simulator.
#   docker build -t sluice .
#   docker run --rm -p 8080:8080 -p 8089:8089 -e REDIS_URL=redis://... sluice gateway

FROM node:24-slim AS dependencies
WORKDIR /app
COPY package.json package-lock.json ./
# No install scripts: the only one that does anything here is that of a development dependency.
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund

FROM node:24-slim
WORKDIR /app
ENV NODE_ENV=production
COPY --from=dependencies /app/node_modules ./node_modules
# Node runs the TypeScript as it is: there is nothing to build.
COPY package.json LICENSE ./
COPY lua ./lua
COPY proto ./proto
COPY workers ./workers
COPY src ./src
# A container's loopback is reached by nobody; who may reach the port is said where it is published.
ENV HOST=0.0.0.0 PORT=8080 GRPC_PORT=8089
EXPOSE 8080 8089
USER node
ENTRYPOINT ["node", "src/cli.ts"]
CMD ["gateway"]
