// Sends N spans, N log records and N metric points with OpenTelemetry's JavaScript SDK.
//
//     node js_sdk.mjs ENDPOINT grpc|http none|gzip SERVICE N
//
// ENDPOINT is http://HOST:PORT. Exits non-zero when the SDK could not deliver everything. Started with
// its packages' folder in NODE_MODULES.
import { createRequire } from 'node:module';
import { join } from 'node:path';

const require = createRequire(join(process.env.NODE_MODULES, 'any.js'));
const { SpanKind, diag } = require('@opentelemetry/api');
const { SeverityNumber } = require('@opentelemetry/api-logs');
const { resourceFromAttributes } = require('@opentelemetry/resources');
const { NodeTracerProvider, BatchSpanProcessor } = require('@opentelemetry/sdk-trace-node');
const { LoggerProvider, BatchLogRecordProcessor } = require('@opentelemetry/sdk-logs');
const { MeterProvider, PeriodicExportingMetricReader } = require('@opentelemetry/sdk-metrics');

const [endpoint, protocol, compression, service, countText] = process.argv.slice(2);
const count = Number(countText);
// Series of one instrument: the SDK limits how many one may have.
const SERIES = 500;

// The SDK reports a failed export as a message only.
const failures = [];
const keep = (...message) => failures.push(message.map(String).join(' '));
const ignore = () => {};
diag.setLogger({ error: keep, warn: keep, info: ignore, debug: ignore, verbose: ignore });

const kind = protocol === 'grpc' ? 'grpc' : 'proto';
const { OTLPTraceExporter } = require(`@opentelemetry/exporter-trace-otlp-${kind}`);
const { OTLPLogExporter } = require(`@opentelemetry/exporter-logs-otlp-${kind}`);
const { OTLPMetricExporter } = require(`@opentelemetry/exporter-metrics-otlp-${kind}`);
const to = (signal) => ({
  url: protocol === 'grpc' ? endpoint : `${endpoint}/v1/${signal}`,
  compression,
});

const resource = resourceFromAttributes({ 'service.name': service, 'deployment.environment.name': 'test' });
const batches = { maxQueueSize: 2 * count, maxExportBatchSize: 512, scheduledDelayMillis: 200 };
const traces = new NodeTracerProvider({
  resource,
  spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter(to('traces')), batches)],
});
// Newer versions take an object, older ones the exporter first.
const logExporter = new OTLPLogExporter(to('logs'));
const logProcessor =
  BatchLogRecordProcessor.length > 1
    ? new BatchLogRecordProcessor(logExporter, batches)
    : new BatchLogRecordProcessor({ exporter: logExporter, ...batches });
const logs = new LoggerProvider({ resource, processors: [logProcessor] });
// Collected once, at the end: how many points there are must not depend on the time it takes.
const reader = new PeriodicExportingMetricReader({
  exporter: new OTLPMetricExporter(to('metrics')),
  exportIntervalMillis: 3_600_000,
});
const meters = new MeterProvider({ resource, readers: [reader] });

const tracer = traces.getTracer('client');
const logger = logs.getLogger('client');
for (let number = 0; number < count; number += 1) {
  const spanKind = number % 2 === 0 ? SpanKind.SERVER : SpanKind.CLIENT;
  const span = tracer.startSpan(`operation-${number % 10}`, { kind: spanKind });
  span.setAttribute('number', number);
  logger.emit({ severityNumber: SeverityNumber.INFO, severityText: 'INFO', body: `item ${number} done` });
  span.end();
}
const meter = meters.getMeter('client');
for (let left = count; left > 0; left -= SERIES) {
  const counter = meter.createCounter(`items.${left}`, { unit: '{item}' });
  for (let number = 0; number < Math.min(SERIES, left); number += 1) counter.add(1, { part: number });
}
await traces.forceFlush();
await logs.forceFlush();
await traces.shutdown();
await logs.shutdown();
await meters.shutdown();
if (failures.length > 0) {
  console.error(failures.slice(0, 20).join('\n'));
  process.exit(1);
}
