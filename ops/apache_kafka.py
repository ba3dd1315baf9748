"""Real Apache Kafka on one machine without Docker, for fault tests, benchmarks and CI.

The jars come from Maven Central through the `mvn` client, once, into `.cache/`. One KRaft process
is broker and controller, bound to 127.0.0.1:

    python -m ops.apache_kafka --port 9092

Production runs Apache Kafka in docker-compose; this is the same version. Only the standard library
is used, so it runs before anything is installed.
"""

import argparse
import base64
import contextlib
import functools
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from ops.processes import ends_with_us, free_port, is_free

VERSION = "4.3.1"
CACHE = Path(__file__).parents[1] / ".cache" / f"apache-kafka-{VERSION}"
POM = Path(__file__).with_name("apache-kafka.pom.xml")

# Without a version Maven takes the one its own release was built with, and that one changes.
COPY_DEPENDENCIES = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"

# A broker that lives for minutes on two shared cores: the quick compiler only (-1 s to start), and
# the collector without threads of its own.
JVM = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")

# Beside the jars; see _archive_classes.
CLASSES = "classes.jsa"

SERVER = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}
log.dirs={logs}

# As in production: topics are declared, never made by a typing error.
auto.create.topics.enable=false
num.partitions=6

# One node holds the only copy.
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1

# A group is ready at once; in production waiting three seconds for more members pays off.
group.initial.rebalance.delay.ms=0

# After SIGKILL the controller refuses the new broker until the session of the old one has ended:
# with the default of nine seconds each restart took twelve.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500

# Sized for one small process: 50 partitions and 128 MiB are the defaults.
offsets.topic.num.partitions=6
transaction.state.log.num.partitions=6
share.coordinator.state.topic.num.partitions=6
log.cleaner.dedupe.buffer.size=16777216
"""

# Without the list of its 300 settings that Kafka prints at each start.
LOGGING = """\
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d{ISO8601} %p %c{1}: %m%n
rootLogger.level=info
rootLogger.appenderRef.console.ref=console
logger.settings.name=org.apache.kafka.common.config
logger.settings.level=warn
"""


class ApacheKafkaError(Exception):
    """Apache Kafka could not be fetched or started; the text says what a person can do."""


@dataclass(slots=True)
class Broker:
    """One Apache Kafka process, its port and its data, which outlive a stop or a kill.

    The process ends with the thread that started it, even on SIGKILL (Linux only): start it from
    a thread that lives as long as the broker shall, usually the main one.
    """

    port: int
    data_dir: Path
    lib: Path
    process: subprocess.Popen[bytes]

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> Path:
        """What the process printed, over all its starts."""
        return self.data_dir / "broker.log"

    def start(self, *, wait: bool = True) -> None:
        """Run again on the same port and data after `stop` or `kill`.

        An event loop calls it with `wait=False` and then `wait_until_ready` in a thread.
        """
        if self.process.poll() is None:
            raise ApacheKafkaError(f"Apache Kafka on port {self.port} is already running.")
        self.process = _spawn(self.lib, self.data_dir)
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self, *, timeout_s: float = 60.0) -> None:
        """Block until the broker answers a client and lists itself.

        Raises ApacheKafkaError with the end of its log when it ended or took longer.
        """
        deadline = time.monotonic() + timeout_s
        while not _answers(self.port):
            if (code := self.process.poll()) is not None:
                raise ApacheKafkaError(
                    f"Apache Kafka ended with code {code} before it was ready.\n{_tail(self.log)}"
                )
            if time.monotonic() > deadline:
                raise ApacheKafkaError(
                    f"Apache Kafka did not answer on {self.bootstrap_servers} within "
                    f"{timeout_s:.0f} s.\n{_tail(self.log)}"
                )
            time.sleep(0.05)

    def stop(self, *, timeout_s: float = 10.0) -> None:
        """SIGTERM, as an operator would; SIGKILL when it is still there after `timeout_s`."""
        if self.process.poll() is not None:
            return
        self.resume()
        self.process.terminate()
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL: nothing is closed or flushed by the process."""
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT: undoes `pause`."""
        self.process.send_signal(signal.SIGCONT)


def fetch(cache: Path = CACHE) -> Path:
    """The folder with the broker's jars, downloaded by Maven on the first call (44 MB).

    Raises ApacheKafkaError when Maven is missing or cannot download.
    """
    lib = cache / "lib"
    if lib.is_dir():
        return lib
    _java()
    maven = shutil.which("mvn")
    if maven is None:
        raise ApacheKafkaError("Maven is needed to fetch Apache Kafka: apt-get install maven")
    cache.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the rename stays on one file system; whole or not there at all.
    with tempfile.TemporaryDirectory(prefix="lib-", dir=cache) as scratch:
        downloaded = Path(scratch) / "lib"
        command = [maven, "--batch-mode", "--no-transfer-progress", f"--file={POM}"]
        command += [f"-Dkafka.version={VERSION}", "-DincludeScope=runtime"]
        command += [f"-DoutputDirectory={downloaded.resolve()}", COPY_DEPENDENCIES]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            # The first one is the reason; the rest is about how to run Maven.
            reason = re.search(r"\[ERROR\] (.+)", done.stdout + done.stderr)
            raise ApacheKafkaError(
                f"Maven could not fetch Apache Kafka {VERSION}: "
                f"{reason[1] if reason else f'it ended with code {done.returncode}.'}"
            )
        # Somebody else may have been quicker: then theirs is the same.
        with contextlib.suppress(OSError):
            downloaded.rename(lib)
    _archive_classes(lib)
    return lib


@contextmanager
def running(data_dir: Path, *, port: int | None = None, cache: Path = CACHE) -> Iterator[Broker]:
    """A ready broker on 127.0.0.1, stopped at the end. Data already in `data_dir` is served again.

    Without `port` it takes a free one. Raises ApacheKafkaError with a sentence for a person.
    """
    lib = fetch(cache).resolve()
    data_dir = data_dir.resolve()
    port = port or free_port()
    if not is_free(port):
        raise ApacheKafkaError(f"Port {port} of 127.0.0.1 is in use by another program.")
    _prepare(lib, data_dir, port)
    broker = Broker(port=port, data_dir=data_dir, lib=lib, process=_spawn(lib, data_dir))
    try:
        broker.wait_until_ready()
        yield broker
    finally:
        broker.stop()


def _archive_classes(lib: Path) -> None:
    """Keep the classes of one short run in a file that later starts map: half the time to start.

    A Java that did not write the file ignores it.
    """
    lib = lib.resolve()
    with tempfile.TemporaryDirectory(prefix="classes-", dir=lib.parent) as scratch:
        data_dir, port = Path(scratch), free_port()
        _prepare(lib, data_dir, port)
        archive = data_dir / CLASSES
        process = _spawn(lib, data_dir, f"-XX:ArchiveClassesAtExit={archive}")
        broker = Broker(port=port, data_dir=data_dir, lib=lib, process=process)
        try:
            broker.wait_until_ready()
        finally:
            broker.stop(timeout_s=60.0)
        if archive.exists():
            archive.replace(lib / CLASSES)


def _prepare(lib: Path, data_dir: Path, port: int) -> None:
    """Write the settings, and format the storage unless it holds data."""
    logs = data_dir / "logs"
    data_dir.mkdir(parents=True, exist_ok=True)
    settings = SERVER.format(port=port, controller_port=free_port(), logs=logs)
    (data_dir / "server.properties").write_text(settings)
    (data_dir / "log4j2.properties").write_text(LOGGING)
    if not (logs / "meta.properties").exists():
        _format(lib, data_dir)


def _format(lib: Path, data_dir: Path) -> None:
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    tool = ["kafka.tools.StorageTool", "format", "--standalone", "--cluster-id", cluster]
    tool += ["--config", str(data_dir / "server.properties")]
    done = subprocess.run(
        [*_jvm(lib, data_dir), *tool],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ApacheKafkaError(f"Apache Kafka could not prepare {data_dir}:\n{done.stdout}")


def _spawn(lib: Path, data_dir: Path, *options: str) -> subprocess.Popen[bytes]:
    settings = str(data_dir / "server.properties")
    command = ends_with_us([*_jvm(lib, data_dir, *options), "kafka.Kafka", settings])
    with (data_dir / "broker.log").open("ab") as log:
        # A session of its own: Ctrl-C in the terminal is for whoever started it, who then stops it.
        return subprocess.Popen(
            command,
            cwd=data_dir,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _jvm(lib: Path, data_dir: Path, *options: str) -> list[str]:
    logging = f"-Dlog4j2.configurationFile={(data_dir / 'log4j2.properties').as_uri()}"
    classes = options or [f"-XX:SharedArchiveFile={lib / CLASSES}"]
    return [_java(), *JVM, *classes, logging, "-classpath", f"{lib}/*"]


@functools.cache
def _java() -> str:
    needed = "Java 17 or newer is needed: apt-get install openjdk-17-jre-headless"
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin" if home else None)
    if java is None:
        raise ApacheKafkaError(needed)
    told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', told)
    if version is None or int(version[1]) < 17:
        raise ApacheKafkaError(f"{needed} ({java} is {told.splitlines()[0] if told else 'broken'})")
    return java


def _answers(port: int) -> bool:
    """Ask for the metadata of no topic, as a client does first: the broker must list itself.

    An open port is not enough: it opens before the controller has let the broker in. Source of
    the bytes: Kafka protocol guide, request header v1, Metadata v1.
    """
    request = struct.pack(">hhihi", 3, 1, 1, -1, 0)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            answer = connection.makefile("rb").read(12)
    except OSError:
        return False
    return len(answer) == 12 and struct.unpack(">iii", answer)[2] > 0


def _tail(log: Path, lines: int = 20) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def main() -> int:
    """Run one broker in the foreground until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="python -m ops.apache_kafka",
        description=f"Runs Apache Kafka {VERSION} on 127.0.0.1 until Ctrl-C, without Docker.",
        epilog="Example: python -m ops.apache_kafka --port 9092 --data /var/tmp/kafka",
    )
    parser.add_argument("--port", type=int, help="port to listen on (default: a free one)")
    parser.add_argument("--data", type=Path, help="folder to keep (default: gone after the stop)")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the jars are kept")
    arguments = parser.parse_args()

    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)  # a shell's background job starts with it ignored
    try:
        with tempfile.TemporaryDirectory(prefix="apache-kafka-") as temporary:
            data = arguments.data or Path(temporary)
            with running(data, port=arguments.port, cache=arguments.cache) as broker:
                print(f"KAFKA_BOOTSTRAP_SERVERS={broker.bootstrap_servers}", flush=True)
                code = broker.process.wait()
                print(f"Apache Kafka ended with code {code}.\n{_tail(broker.log)}", file=sys.stderr)
                return 1
    except ApacheKafkaError as unavailable:
        print(unavailable, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
