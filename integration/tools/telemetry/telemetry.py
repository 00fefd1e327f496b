"""What operators have: a parser of metrics and a collector of spans and metrics, both of OpenTelemetry's and Prometheus' own packages.

telemetry.py scrape SOCKET      reads /metrics, parses it, prints one JSON object of samples
telemetry.py collect FILE       collects over gRPC and HTTP, prints both ports, appends one JSON object a line to FILE
"""

import http.client
import http.server
import json
import socket
import sys
import threading
from concurrent import futures


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def scrape(path):
    from prometheus_client.parser import text_string_to_metric_families

    connection = UnixConnection(path)
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    assert answer.status == 200, answer.status
    samples = {}
    types = {}
    for family in text_string_to_metric_families(answer.read().decode()):
        types[family.name] = family.type
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            name = sample.name + ("{" + labels + "}" if labels else "")
            assert name not in samples, f"{name} is told twice"
            samples[name] = sample.value
    print(json.dumps({"types": types, "samples": samples}))


def collect(file):
    import grpc
    from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

    out = open(file, "a", buffering=1)
    lock = threading.Lock()

    def attributes(pairs):
        return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}

    def tell(line):
        with lock:
            out.write(json.dumps(line) + "\n")

    def spans(request, over):
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    tell({
                        "over": over, "service": attributes(resource.resource.attributes).get("service.name"),
                        "span": span.name, "trace": span.trace_id.hex(), "id": span.span_id.hex(),
                        "parent": span.parent_span_id.hex(), "error": span.status.message,
                        "nanos": span.end_time_unix_nano - span.start_time_unix_nano,
                    })

    def metrics(request, over):
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    kind = metric.WhichOneof("data")
                    data = getattr(metric, kind)
                    for point in data.data_points:
                        value = point.count if kind == "histogram" else getattr(point, point.WhichOneof("value"))
                        tell({
                            "over": over, "scope": scope.scope.name, "metric": metric.name, "kind": kind, "unit": metric.unit,
                            "temporality": getattr(data, "aggregation_temporality", 0),
                            "labels": attributes(point.attributes), "value": value,
                        })

    class Traces(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request, context):
            spans(request, "grpc")
            return trace_service_pb2.ExportTraceServiceResponse()

    class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
        def Export(self, request, context):
            metrics(request, "grpc")
            return metrics_service_pb2.ExportMetricsServiceResponse()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.headers["content-type"] == "application/x-protobuf"
            if self.path == "/v1/traces":
                spans(trace_service_pb2.ExportTraceServiceRequest.FromString(body), "http")
            elif self.path == "/v1/metrics":
                metrics(metrics_service_pb2.ExportMetricsServiceRequest.FromString(body), "http")
            else:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = grpc.server(futures.ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Metrics(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(port, web.server_address[1], flush=True)
    web.serve_forever()


if __name__ == "__main__":
    {"scrape": scrape, "collect": collect}[sys.argv[1]](sys.argv[2])
