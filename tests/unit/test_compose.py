"""The compose file and the Dockerfile keep the promises of docs/how-to/docker.md.

No Docker here: the files are read as text, so that a slip is found before anybody pulls an image.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.assignment.settings import AssignmentSettings
from services.intake.settings import IntakeSettings
from services.notification.settings import NotificationSettings
from shared.settings import Settings

ROOT = Path(__file__).parents[2]

# Two forms are accepted: a fixed port, or one that a variable can replace, by a range too.
LOOPBACK_PORT = re.compile(
    r"""127\.0\.0\.1:
        (?P<host>\d+|\$\{JANGKAU_[A-Z]+_PORTS:-(?P<default>\d+)\}):
        (?P<container>\d+)""",
    re.VERBOSE,
)

SERVICES = ("intake", "assignment", "notification")
JOBS = ("migrate", "topics")
SERVERS = ("kafka", "postgres", "mailpit")


def _compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    return loaded


def _containers() -> dict[str, dict[str, Any]]:
    containers: dict[str, dict[str, Any]] = _compose()["services"]
    return containers


every_container = pytest.mark.parametrize("name", SERVERS + JOBS + SERVICES)
every_service = pytest.mark.parametrize("name", SERVICES)
every_job = pytest.mark.parametrize("name", JOBS)
everything_that_stays = pytest.mark.parametrize("name", SERVERS + SERVICES)


def test_nothing_runs_that_these_tests_do_not_know() -> None:
    assert set(_containers()) == {*SERVERS, *JOBS, *SERVICES}


def test_compose_1_29_and_2_both_read_the_file() -> None:
    # `version` makes 2.x warn, `name` makes 1.29 refuse; without either both are content.
    assert {key for key in _compose() if not key.startswith("x-")} == {"services", "volumes"}


@every_container
def test_a_port_is_published_on_the_loopback_address_only(name: str) -> None:
    for port in _containers()[name].get("ports", []):
        assert LOOPBACK_PORT.fullmatch(port), f"{name} publishes {port}"


@every_container
def test_no_container_uses_the_network_of_the_host(name: str) -> None:
    container = _containers()[name]
    assert not {"network_mode", "pid", "ipc", "privileged", "devices"} & set(container)
    assert not any("docker.sock" in volume for volume in container.get("volumes", []))


@every_container
def test_no_container_has_a_name_so_that_it_can_be_scaled(name: str) -> None:
    assert not {"container_name", "hostname"} & set(_containers()[name])


@every_service
def test_a_service_comes_back_where_it_was(name: str) -> None:
    """Of a range Docker takes the next free port at each start, also after a crash."""
    (port,) = _containers()[name]["ports"]
    match = LOOPBACK_PORT.fullmatch(port)
    assert match is not None
    assert match["host"].startswith("${"), "a range can be set for replicas"
    assert match["container"] == _containers()[name]["environment"]["JANGKAU_PORT"]


def test_the_ports_leave_room_for_ten_replicas_of_each() -> None:
    taken: list[int] = []
    for container in _containers().values():
        for port in container.get("ports", []):
            match = LOOPBACK_PORT.fullmatch(port)
            assert match is not None
            taken.append(int(match["default"] or match["host"]))
    assert all(abs(one - other) >= 10 for one in taken for other in taken if one != other)
    assert len(taken) == len(set(taken))


def test_metrics_are_published_nowhere() -> None:
    for name in SERVICES:
        environment = _containers()[name]["environment"]
        assert environment["JANGKAU_METRICS_PORT"] != environment["JANGKAU_PORT"]
        assert not any(
            environment["JANGKAU_METRICS_PORT"] in p for p in _containers()[name]["ports"]
        )


def _megabytes(limit: str) -> int:
    size = re.fullmatch(r"(?:\$\{JANGKAU_[A-Z]+_MEMORY:-)?(\d+)([mg])\}?", limit)
    assert size, limit
    return int(size[1]) * (1024 if size[2] == "g" else 1)


@every_container
def test_no_container_can_take_the_machine_along(name: str) -> None:
    container = _containers()[name]
    assert 64 <= _megabytes(container["mem_limit"]) <= 1536
    assert 32 <= container["pids_limit"] <= 512


def test_all_that_stays_up_fits_into_the_memory_that_the_how_to_asks_for() -> None:
    stays = [_megabytes(_containers()[name]["mem_limit"]) for name in SERVERS + SERVICES]
    assert sum(stays) <= 4096


def test_kafkas_heap_leaves_half_of_its_memory_for_all_else() -> None:
    kafka = _containers()["kafka"]
    heap = re.search(r"-Xmx(\d+)m", kafka["environment"]["KAFKA_HEAP_OPTS"])
    assert heap is not None
    assert int(heap[1]) * 2 <= _megabytes(kafka["mem_limit"])


@pytest.mark.parametrize("name", SERVERS)
def test_an_image_from_outside_is_pinned_to_an_exact_version(name: str) -> None:
    _, _, tag = _containers()[name]["image"].partition(":")
    assert re.match(r"v?\d+\.\d+", tag), f"{name} uses the moving tag {tag!r}"


@pytest.mark.parametrize("name", JOBS + SERVICES)
def test_our_own_containers_run_one_image_that_is_built_here(name: str) -> None:
    container = _containers()[name]
    assert container["image"] == "jangkau:${JANGKAU_VERSION:-dev}"
    assert container["build"] == "."


@every_container
def test_no_image_is_latest(name: str) -> None:
    assert ":" in _containers()[name]["image"]
    assert "latest" not in _containers()[name]["image"]


@every_container
def test_no_container_runs_as_root(name: str) -> None:
    user = str(_containers()[name]["user"])
    assert user.partition(":")[0] not in {"", "0", "root"}


@every_container
def test_no_container_can_write_to_its_image_or_gain_rights(name: str) -> None:
    container = _containers()[name]
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert "cap_add" not in container
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert any(mount.startswith("/tmp:") for mount in container["tmpfs"])


@pytest.mark.parametrize("name", JOBS + SERVICES)
def test_the_districts_are_read_only(name: str) -> None:
    assert _containers()[name]["volumes"] == ["./districts:/app/districts:ro"]
    assert _containers()[name]["environment"]["JANGKAU_DISTRICTS"] == "/app/districts"


@everything_that_stays
def test_what_stays_up_has_a_health_check_with_limits(name: str) -> None:
    check = _containers()[name]["healthcheck"]
    assert {"test", "interval", "timeout", "retries", "start_period"} == set(check)
    assert check["test"][0] in {"CMD", "CMD-SHELL"}


@every_service
def test_the_health_of_a_service_is_asked_of_the_service_itself(name: str) -> None:
    assert _containers()[name]["healthcheck"]["test"] == ["CMD", "jangkau-health"]


@every_service
def test_a_service_waits_for_healthy_servers_and_finished_jobs(name: str) -> None:
    assert _containers()[name]["depends_on"] == {
        "postgres": {"condition": "service_healthy"},
        "kafka": {"condition": "service_healthy"},
        "migrate": {"condition": "service_completed_successfully"},
        "topics": {"condition": "service_completed_successfully"},
    }


def test_a_job_waits_for_the_server_that_it_changes() -> None:
    healthy = {"condition": "service_healthy"}
    assert _containers()["migrate"]["depends_on"] == {"postgres": healthy}
    assert _containers()["topics"]["depends_on"] == {"kafka": healthy}


@every_container
def test_every_container_gets_forty_seconds_to_finish_its_work(name: str) -> None:
    assert _containers()[name]["stop_grace_period"] == "40s"


@everything_that_stays
def test_what_stays_up_comes_back_after_a_crash_and_after_a_reboot(name: str) -> None:
    assert _containers()[name]["restart"] == "unless-stopped"


@every_job
def test_a_job_runs_once(name: str) -> None:
    assert _containers()[name]["restart"] == "no"


@every_container
def test_logs_cannot_fill_the_disk(name: str) -> None:
    assert {"max-size", "max-file"} <= set(_containers()[name]["logging"]["options"])


@pytest.mark.parametrize("name", JOBS + SERVICES)
def test_one_command_per_container(name: str) -> None:
    expected = [name] if name in JOBS else ["serve", name]
    assert _containers()[name]["command"] == expected


def test_kafka_keeps_its_data_and_makes_no_topic_by_itself() -> None:
    kafka = _containers()["kafka"]
    assert kafka["environment"]["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    assert kafka["volumes"] == [f"kafka-data:{kafka['environment']['KAFKA_LOG_DIRS']}"]
    assert "ports" not in kafka


def test_postgresql_18_keeps_its_data_where_the_image_expects_it() -> None:
    postgres = _containers()["postgres"]
    assert postgres["image"].startswith("postgres:18.")
    # Up to 17 it was /var/lib/postgresql/data; there, 18 would keep nothing.
    assert postgres["volumes"] == ["postgres-data:/var/lib/postgresql"]
    assert "ports" not in postgres


def test_every_volume_is_declared_and_used() -> None:
    named = {
        volume.partition(":")[0]
        for container in _containers().values()
        for volume in container.get("volumes", [])
        if not volume.startswith((".", "/"))
    }
    assert named == set(_compose()["volumes"])


def test_each_service_has_a_role_and_a_password_of_its_own() -> None:
    migrate = _containers()["migrate"]["environment"]
    for name in SERVICES:
        environment = _containers()[name]["environment"]
        own = f"${{JANGKAU_{name.upper()}_DATABASE_PASSWORD:-development-only}}"
        assert environment["JANGKAU_DATABASE_PASSWORD"] == own
        assert migrate[f"JANGKAU_{name.upper()}_DATABASE_PASSWORD"] == own
        url = environment["JANGKAU_DATABASE_URL"]
        assert url == "postgresql+asyncpg://jangkau_{service}@postgres:5432/jangkau_{service}"


def test_the_password_of_the_servers_own_user_is_known_to_the_migration_alone() -> None:
    default = "${JANGKAU_DATABASE_PASSWORD:-development-only}"
    assert _containers()["postgres"]["environment"]["POSTGRES_PASSWORD"] == default
    knowing = [
        name
        for name, container in _containers().items()
        if default in map(str, container.get("environment", {}).values())
    ]
    assert knowing == ["postgres", "migrate"]
    assert "//jangkau@postgres" in _containers()["migrate"]["environment"]["JANGKAU_DATABASE_URL"]


@pytest.mark.parametrize("name", JOBS + SERVICES)
def test_the_environment_is_development_until_it_is_said(name: str) -> None:
    environment = _containers()[name]["environment"]
    assert environment["JANGKAU_ENVIRONMENT"] == "${JANGKAU_ENVIRONMENT:-development}"


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("intake", IntakeSettings),
        ("assignment", AssignmentSettings),
        ("notification", NotificationSettings),
    ],
)
def test_every_secret_of_a_service_can_be_set_from_outside(
    name: str, settings: type[Settings]
) -> None:
    secrets = {
        f"JANGKAU_{field.upper()}"
        for field, about in settings.model_fields.items()
        if "SecretStr" in str(about.annotation)
    }
    assert secrets <= set(_containers()[name]["environment"])


def test_every_setting_of_a_channel_can_be_set_from_outside() -> None:
    kinds = ("channels", "smtp_", "sms_", "twilio_", "apprise_", "provider_", "receipt_", "keep_")
    settings = {
        f"JANGKAU_{name.upper()}"
        for name in NotificationSettings.model_fields
        if name.startswith(kinds)
    }
    assert settings <= set(_containers()["notification"]["environment"])


def test_in_development_mail_goes_to_the_catcher_and_the_rest_to_the_sandbox() -> None:
    environment = _containers()["notification"]["environment"]
    assert environment["JANGKAU_CHANNELS"] == "${JANGKAU_CHANNELS:-email,sandbox}"
    assert environment["JANGKAU_SMTP_HOST"] == "${JANGKAU_SMTP_HOST:-mailpit}"
    assert environment["JANGKAU_SMTP_PORT"] == "${JANGKAU_SMTP_PORT:-1025}"


def test_the_image_is_pinned_has_no_root_and_starts_jangkau() -> None:
    text = (ROOT / "Dockerfile").read_text("utf-8")
    lines = text.splitlines()
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.\d+\.\d+-slim-bookworm$", text, re.MULTILINE)
    assert [line for line in lines if line.startswith("USER")] == ["USER 10001:10001"]
    assert 'ENTRYPOINT ["jangkau"]' in lines
    assert "--require-hashes" in text
    assert all("${PYTHON_IMAGE}" in line for line in lines if line.startswith("FROM"))


def test_nothing_but_what_the_image_needs_goes_to_the_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    copied = re.findall(r"^COPY (?!--from)(.+)$", (ROOT / "Dockerfile").read_text("utf-8"), re.M)
    needed = {source for line in copied for source in line.split()[:-1]}
    assert {rule[1:] for rule in rules if rule.startswith("!")} == needed


def test_no_public_address_of_notification_stays_none() -> None:
    """Empty means messages without a link, which is not the same as unset."""
    given = _containers()["notification"]["environment"]["JANGKAU_PUBLIC_URL"]
    assert given == "${JANGKAU_NOTIFICATION_PUBLIC_URL-http://127.0.0.1:8200}"
