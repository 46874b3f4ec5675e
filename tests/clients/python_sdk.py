"""Sends N spans, N log records and N metric points with OpenTelemetry's Python SDK.

    python_sdk.py ENDPOINT grpc|http none|gzip SERVICE N

ENDPOINT is http://HOST:PORT. Exits non-zero when the SDK could not deliver everything.
"""

import logging
import sys
import time

from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind
from opentelemetry._logs import SeverityNumber

# Series of one instrument: the SDK limits how many one may have.
SERIES = 500


def exporters(endpoint, protocol, compression):
    if protocol == "grpc":
        import grpc
        from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        how = grpc.Compression.Gzip if compression == "gzip" else grpc.Compression.NoCompression
        same = {"endpoint": endpoint, "insecure": True, "compression": how}
        return OTLPSpanExporter(**same), OTLPLogExporter(**same), OTLPMetricExporter(**same)
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    how = Compression.Gzip if compression == "gzip" else Compression.NoCompression
    return (
        OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces", compression=how),
        OTLPLogExporter(endpoint=f"{endpoint}/v1/logs", compression=how),
        OTLPMetricExporter(endpoint=f"{endpoint}/v1/metrics", compression=how),
    )


class Failures(logging.Handler):
    """The SDK reports a failed export as a log message only."""

    def __init__(self):
        super().__init__(level=logging.WARNING)
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


def main():
    endpoint, protocol, compression, service, count = sys.argv[1:]
    count = int(count)
    failures = Failures()
    logging.getLogger().addHandler(failures)
    resource = Resource.create({"service.name": service, "deployment.environment.name": "test"})
    span_exporter, log_exporter, metric_exporter = exporters(endpoint, protocol, compression)

    traces = TracerProvider(resource=resource)
    traces.add_span_processor(BatchSpanProcessor(span_exporter, max_queue_size=2 * count, schedule_delay_millis=200))
    tracer = traces.get_tracer("client")
    logs = LoggerProvider(resource=resource)
    logs.add_log_record_processor(
        BatchLogRecordProcessor(log_exporter, max_queue_size=2 * count, schedule_delay_millis=200)
    )
    logger = logs.get_logger("client")
    # Collected by hand: how many points there are must not depend on the time it takes.
    reader = PeriodicExportingMetricReader(metric_exporter, export_interval_millis=3_600_000)
    meters = MeterProvider(resource=resource, metric_readers=[reader])

    for number in range(count):
        kind = SpanKind.SERVER if number % 2 == 0 else SpanKind.CLIENT
        with tracer.start_as_current_span(f"operation-{number % 10}", kind=kind) as span:
            span.set_attribute("number", number)
            logger.emit(
                timestamp=time.time_ns(),
                severity_number=SeverityNumber.INFO,
                severity_text="INFO",
                body=f"item {number} done",
            )
    meter = meters.get_meter("client")
    left = count
    while left > 0:
        series = min(SERIES, left)
        counter = meter.create_counter(f"items.{left}", unit="{item}")
        for number in range(series):
            counter.add(1, {"part": number})
        left -= series
    delivered = traces.force_flush(60_000) and logs.force_flush(60_000)
    traces.shutdown()
    logs.shutdown()
    meters.shutdown()  # collects once and exports: exactly `count` points
    if not delivered or failures.messages:
        print("\n".join(failures.messages[:20]) or "not flushed in time", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
