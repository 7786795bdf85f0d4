"""What Hadoop's daemons share: the version, configuration files, flags of the Java machine."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

VERSION = "3.5.0"
_LOG4J = """log4j.rootLogger=INFO,A
log4j.appender.A=org.apache.log4j.ConsoleAppender
log4j.appender.A.layout=org.apache.log4j.PatternLayout
log4j.appender.A.layout.ConversionPattern=%d{ISO8601} %p %c{1}: %m%n
"""


def write_configuration(folder: Path, **files: dict[str, str]) -> None:
    """Write ``NAME-site.xml`` for each keyword `NAME_site`, and the settings of the log, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, settings in files.items():
        (folder / f"{name.replace('_', '-')}.xml").write_text(_xml(settings))
    (folder / "log4j.properties").write_text(_LOG4J)


def java_flags(tmp: Path, memory: str = "256m") -> list[str]:
    """Return flags for a small daemon: the serial collector and the quick compiler, up in seconds."""
    flags = [f"-Xmx{memory}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]
    return [*flags, f"-Djava.io.tmpdir={tmp}", "-Djava.net.preferIPv4Stack=true"]


def _xml(settings: dict[str, str]) -> str:
    rows = "".join(
        f"<property><name>{name}</name><value>{escape(value)}</value></property>\n" for name, value in settings.items()
    )
    return f"<configuration>\n{rows}</configuration>\n"
