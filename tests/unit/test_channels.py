"""What channels promise, how a gateway's answer is read, and settings that cannot work."""

import json
from datetime import timedelta
from typing import Any
from urllib.parse import quote_plus
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError
from twilio.request_validator import RequestValidator

from services.notification.channels import (
    Incoming,
    Outgoing,
    PermanentFailure,
    Receipt,
    TransientFailure,
    UnknownOutcome,
    email,
    sms,
    twilio,
)
from services.notification.channels.apprise import Apprise
from services.notification.channels.email import Email
from services.notification.channels.http import Reply
from services.notification.channels.rules import Rule, field
from services.notification.channels.sms import Rules, Sms
from services.notification.channels.twilio import Twilio
from services.notification.settings import NotificationSettings

PHONE = "+6281234567890"
OURS = UUID("01890000-0000-7000-8000-000000000007")
SECRET = "a secret of the gateway"
TWILIO: dict[str, Any] = {
    "channels": "twilio",
    "twilio_account_sid": "AC1",
    "twilio_auth_token": "twilio's own token",
    "twilio_from": "+15005550006",
}
TELEGRAM = "tgram://123456789:AAF8aoQ3l5R1xYzYzYzYzYzYz/{phone}"
APPRISE = "whatsapp://tokenofwhatsapp@123456789012345/{phone}"


def settings(**given: Any) -> NotificationSettings:
    """Settings of the channel sms, if nothing else is said."""
    return NotificationSettings(**{"channels": "sms", "sms_url": "http://127.0.0.1:1/", **given})


def production(**given: Any) -> NotificationSettings:
    return settings(
        **{
            "environment": "production",
            "link_keys": SecretStr("a key of this year"),
            "public_url": "https://jangkau.example",
            **given,
        }
    )


def outgoing(**values: Any) -> Outgoing:
    given = {
        "idempotency_key": OURS,
        "address": PHONE,
        "short_text": 'Bisa datang? "YA" & {id}\n',
        "subject": "s",
        "long_text": "l",
        **values,
    }
    return Outgoing(**given)


def outcome(status: int, body: str = "", *, after: int | None = None, **rules: Any) -> str:
    """What an answer means under these rules."""
    wait = timedelta(seconds=after) if after is not None else None
    return Rules(settings(**rules)).outcome(Reply(status, body, wait))


# --- rules ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "answer", "value"),
    [
        ("json:status=1", '{"status": "1"}', "1"),
        ("json:status=1", '{"status": 1}', "1"),
        ("json:status = 1", '{"status": 1}', "1"),
        ("json:status=1", '{"status": 10}', None),
        ("json:status=1", "OK", None),
        ("json:status=1", "[]", None),
        ("json:ok=true", '{"ok": true}', "true"),
        ("json:message.status in 1,2", '{"message": {"status": 2}}', "2"),
        ("json:message.status in 1, 2", '{"message": {"status": "3"}}', None),
        ("json:message.id", '{"message": {"id": 0}}', "0"),
        ("json:message.id", '{"message": {"id": null}}', None),
        ("json:message", '{"message": {"id": 0}}', None),
        ("json:data.0.packet.id", '{"data": [{"packet": {"id": "x"}}]}', "x"),
        ("json:data.1.packet.id", '{"data": [{"packet": {"id": "x"}}]}', None),
        ("json:data.x", '{"data": [1]}', None),
        ("json:text=Not enough credit", '{"text": "Not enough credit"}', "Not enough credit"),
        ("text:OK", " OK 17", "OK"),
        ("text:OK", "NOT OK", None),
        (r"re:ID=(\d+)", "sent, ID=17.", "17"),
        (r"re:ID=\d+", "sent, ID=17.", "ID=17"),
        (r"re:ID=(\d+)", "no", None),
    ],
)
def test_a_rule_finds_what_it_describes(rule: str, answer: str, value: str | None) -> None:
    parsed = Rule.parse(rule)
    assert parsed is not None
    assert parsed.value(answer) == value
    assert parsed.matches(answer) == (value is not None)


@pytest.mark.parametrize("text", ["", "  "])
def test_no_rule_is_none(text: str) -> None:
    assert Rule.parse(text) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("status=1", "begins with none of json:, text: and re:"),
        ("json:", "begins with none of"),
        ("json:a b", "is neither a field, nor field=value"),
        ("re:(", "is no regular expression"),
    ],
)
def test_a_rule_that_describes_nothing_is_named_at_the_start(text: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        settings(sms_success=text)


@given(st.text())
def test_no_answer_of_a_gateway_crashes_a_rule(answer: str) -> None:
    for text in ("json:a.0.b=1", "json:0", "text:OK", r"re:(\d)?"):
        rule = Rule.parse(text)
        assert rule is not None
        rule.value(answer)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values, st.text())
def test_no_body_crashes_the_search_for_a_field(body: Any, path: str) -> None:
    field(body, path)
    field(body, "a.0.b")


# --- what a gateway's answer means ----------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202])
def test_a_gateway_that_takes_the_message_has_taken_it(status: int) -> None:
    assert outcome(status, "gateway-id-1") == "gateway-id-1"


@pytest.mark.parametrize("status", [401, 402, 403, 408, 425, 429, 503])
def test_a_gateway_that_asks_to_come_again_has_not_taken_it(status: int) -> None:
    with pytest.raises(TransientFailure) as failure:
        outcome(status, after=17)
    assert failure.value.retry_after == timedelta(seconds=17)


@pytest.mark.parametrize("status", [302, 400, 404, 422])
def test_a_gateway_that_refuses_has_refused_for_good(status: int) -> None:
    with pytest.raises(PermanentFailure):
        outcome(status)


@pytest.mark.parametrize("status", [500, 502, 504])
def test_any_other_answer_leaves_the_outcome_unknown(status: int) -> None:
    with pytest.raises(UnknownOutcome):
        outcome(status)


RULES: dict[str, Any] = {
    "sms_success": "json:status=1",
    "sms_message_id": "json:messageId",
    "sms_transient": "re:(?i)credit|busy",
    "sms_permanent": "re:(?i)invalid number",
}


def test_an_answer_that_reads_as_success_gives_the_gateways_id() -> None:
    assert outcome(200, '{"status": "1", "messageId": 23}', **RULES) == "23"
    assert outcome(200, '{"status": "1"}', **RULES) == ""


def test_a_200_that_reads_as_no_success_is_an_error_of_its_kind() -> None:
    with pytest.raises(TransientFailure, match="Not enough credit"):
        outcome(200, '{"status": "0", "text": "Not enough credit"}', **RULES)
    with pytest.raises(PermanentFailure, match="Invalid number"):
        outcome(200, '{"status": "0", "text": "Invalid number"}', **RULES)


@pytest.mark.parametrize("body", ['{"status": "0", "text": "hm"}', "", "<html>", "[]"])
def test_a_200_that_says_something_unheard_of_leaves_the_outcome_unknown(body: str) -> None:
    with pytest.raises(UnknownOutcome):
        outcome(200, body, **RULES)


def test_rules_for_errors_hold_for_other_statuses_too() -> None:
    with pytest.raises(TransientFailure):
        outcome(400, "busy, try later", **RULES)
    with pytest.raises(PermanentFailure):
        outcome(500, "Invalid number", **RULES)
    with pytest.raises(UnknownOutcome):
        outcome(500, '{"status": "1"}', **RULES)  # both at once is no success


def test_without_a_rule_for_success_errors_in_a_200_are_still_found() -> None:
    with pytest.raises(PermanentFailure):
        outcome(200, "invalid number", sms_permanent="text:invalid")
    assert outcome(200, "17", sms_permanent="text:invalid") == "17"


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, 21211, PermanentFailure),
        (400, 21610, PermanentFailure),
        (400, 21614, PermanentFailure),
        (403, 21608, PermanentFailure),
        (400, None, PermanentFailure),
        (429, 20429, TransientFailure),
        (429, None, TransientFailure),
        (401, 20003, TransientFailure),
        (403, 20003, TransientFailure),
        (404, 20404, TransientFailure),
        (500, 20500, UnknownOutcome),
        (503, None, UnknownOutcome),
    ],
)
def test_twilios_codes_say_whether_to_come_again(
    status: int, code: int | None, kind: type[Exception]
) -> None:
    said = json.dumps({"code": code, "message": f"no {PHONE}", "status": status})
    with pytest.raises(kind) as failure:
        twilio._outcome(Reply(status, said if code else "<html>", timedelta(seconds=5)))
    assert PHONE not in str(failure.value)
    if isinstance(failure.value, TransientFailure):
        assert failure.value.retry_after == timedelta(seconds=5)


@pytest.mark.parametrize("body", ["", "{}", "[]", "ok"])
def test_a_success_of_twilio_without_a_sid_leaves_the_outcome_unknown(body: str) -> None:
    with pytest.raises(UnknownOutcome):
        twilio._outcome(Reply(201, body))


@pytest.mark.parametrize(
    ("code", "kind"),
    [(421, TransientFailure), (451, TransientFailure), (550, PermanentFailure)],
)
def test_an_smtp_code_says_whether_to_come_again(code: int, kind: type[Exception]) -> None:
    assert isinstance(email._by_code(code, "x"), kind)


# --- templates ------------------------------------------------------------------------------------


@given(st.text())
def test_a_json_body_stays_json_whatever_the_text(text: str) -> None:
    channel = Sms(settings())
    filled = channel._filled(channel.settings.sms_body, outgoing(short_text=text), channel._escape)
    assert json.loads(filled) == {"to": PHONE, "text": text, "id": str(OURS)}


def test_a_form_body_and_a_url_are_escaped() -> None:
    channel = Sms(
        settings(
            sms_url="http://127.0.0.1:1/send?to={to}&id={id}",
            sms_body="text={text}&pass={secret}&user={user}",
            sms_content_type="application/x-www-form-urlencoded",
            sms_user="dinsos",
            sms_secret="p&ss",
        )
    )
    url = channel._filled(channel.settings.sms_url, outgoing(), quote_plus)
    assert url == f"http://127.0.0.1:1/send?to=%2B6281234567890&id={OURS}"
    body = channel.settings.sms_body
    filled = channel._filled(body, outgoing(short_text="a&b c"), channel._escape)
    assert filled == "text=a%26b+c&pass=p%26ss&user=dinsos"


@pytest.mark.parametrize(
    ("phone", "expected"),
    [(PHONE, "6281234567890 081234567890"), ("+6591234567", "6591234567 6591234567")],
)
def test_a_number_is_written_as_the_gateway_wants_it(phone: str, expected: str) -> None:
    channel = Sms(settings())
    assert channel._filled("{digits} {local}", outgoing(address=phone), str) == expected


# --- what channels promise ------------------------------------------------------------------------


async def test_a_channel_says_what_its_provider_can_do() -> None:
    given = production(
        channels="sms,email,twilio,apprise",
        public_url="https://jangkau.example",
        twilio_receipts=False,
        concurrency=7,
        sms_lookup_url="http://127.0.0.1:1/{id}",
        sms_idempotent=True,
        sms_receipts=True,
        sms_webhook_secret=SECRET,
        sms_cost_per_segment=350,
        sms_rate_per_second=20,
        sms_concurrency=3,
        twilio_cost_per_segment=900,
        smtp_connections=2,
        apprise_url=APPRISE,
        **{name: value for name, value in TWILIO.items() if name != "channels"},
    )
    promises = [
        (
            channel.name,
            channel.kind,
            channel.supports_idempotency,
            channel.supports_lookup,
            channel.supports_receipts,
            channel.cost_per_segment,
            channel.rate_per_second,
            channel.concurrency,
        )
        for channel in (Sms(given), Twilio(given), Email(given), Apprise(given))
    ]
    assert promises == [
        ("sms", "sms", True, True, True, 350, 20, 3),
        ("twilio", "sms", False, True, False, 900, None, 7),
        ("email", "email", False, False, False, 0, None, 2),
        ("apprise", "other", False, False, False, 0, None, 4),
    ]


def test_twilio_tells_what_became_of_a_message_where_it_can_reach_us() -> None:
    beside_us = {**TWILIO, "twilio_url": "http://127.0.0.1:1"}
    assert not settings(**beside_us).twilio_calls_back
    assert production(**TWILIO).twilio_calls_back
    assert settings(**beside_us, twilio_receipts=True).twilio_calls_back
    assert not production(**TWILIO, twilio_receipts=False).twilio_calls_back


@pytest.mark.parametrize(
    ("url", "phone", "mail", "address"),
    [
        ("whatsapp://tokenofwhatsapp@123456789012345/{phone}", PHONE, "a@b.c", PHONE),
        ("whatsapp://tokenofwhatsapp@123456789012345/{phone}", None, "a@b.c", None),
        ("mailto://user:pass@example.org?to={email}", PHONE, "a@b.c", "a@b.c"),
        ("json://127.0.0.1/{address}", PHONE, "a@b.c", PHONE),
        ("json://127.0.0.1/{address}", None, "a@b.c", "a@b.c"),
    ],
)
async def test_apprise_reaches_whoever_has_what_its_url_asks_for(
    url: str, phone: str | None, mail: str | None, address: str | None
) -> None:
    channel = Apprise(production(channels="apprise", apprise_url=url))
    assert channel.address_of(phone=phone, email=mail) == address


# --- webhooks -------------------------------------------------------------------------------------

PUBLIC = "https://relawan.example"


def test_only_what_twilio_has_signed_for_our_public_address_is_believed() -> None:
    given = production(**TWILIO, public_url=PUBLIC + "/")
    path, params = f"/v1/receipts/twilio?message={OURS}", {"MessageSid": "SM1", "b": "ü"}
    signature = RequestValidator(TWILIO["twilio_auth_token"]).compute_signature(
        PUBLIC + path, params
    )

    def signed(path: str, params: dict[str, str], signature: str | None) -> bool:
        return twilio.is_signed(path, params, signature, settings=given)

    assert signed(path, params, signature)
    assert not signed(path, {**params, "MessageSid": "SM2"}, signature)
    assert not signed(path + "0", params, signature)
    assert not signed("/v1/inbound/twilio", params, signature)
    assert not signed(path, params, None)
    assert not signed(path, params, "")
    other = RequestValidator("another token").compute_signature(PUBLIC + path, params)
    assert not signed(path, params, other)
    attackers = RequestValidator(TWILIO["twilio_auth_token"]).compute_signature(
        "https://evil.example" + path, params
    )
    assert not signed(path, params, attackers)


def test_without_a_token_nothing_is_signed() -> None:
    signature = RequestValidator("").compute_signature("http://127.0.0.1:8000/", {})
    assert not twilio.is_signed("/", {}, signature, settings=settings())


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("sent", "sent"),
        ("delivered", "delivered"),
        ("read", "delivered"),
        ("undelivered", "undelivered"),
        ("failed", "undelivered"),
    ],
)
def test_a_receipt_of_twilio_names_the_message_by_both_ids(status: str, state: str) -> None:
    params = {"MessageSid": "SM1", "MessageStatus": status, "message": str(OURS)}
    found = twilio.read_receipt(params)
    assert found is not None
    assert (found.provider_id, found.message_id, found.state) == ("SM1", OURS, state)


def test_a_receipt_of_twilio_keeps_the_code_of_the_error() -> None:
    params = {"MessageSid": "SM1", "MessageStatus": "undelivered", "ErrorCode": "30003"}
    found = twilio.read_receipt({**params, "message": "no id"})
    assert found == Receipt("SM1", None, "undelivered", "Twilio's code 30003")


@pytest.mark.parametrize("status", ["", "queued", "sending", "accepted", "of the future"])
def test_what_is_nothing_new_is_no_receipt(status: str) -> None:
    assert twilio.read_receipt({"MessageSid": "SM1", "MessageStatus": status}) is None


def test_a_text_to_twilio_has_a_sender() -> None:
    found = twilio.read_incoming({"MessageSid": "SM1", "From": PHONE, "Body": " K7P2M ya "})
    assert found == Incoming("SM1", PHONE, " K7P2M ya ")
    assert twilio.read_incoming({"Body": "ya"}) is None
    assert twilio.read_incoming({"From": PHONE}) is None


def test_a_webhook_is_json_or_a_form() -> None:
    assert sms.read_body(b'{"a": {"b": 1}}', "application/json; charset=utf-8") == {"a": {"b": 1}}
    assert sms.read_body(b"a=1&b=", "application/x-www-form-urlencoded") == {"a": "1", "b": ""}
    assert sms.read_body(b"", None) == {}
    for raw, kind in ((b"[1]", "application/json"), (b"{", "application/json"), (b"a=\xff", None)):
        with pytest.raises(ValueError, match=r"."):
            sms.read_body(raw, kind)


@given(st.binary(), st.sampled_from([None, "application/json", "text/plain"]))
def test_no_body_of_a_webhook_crashes_its_reader(raw: bytes, kind: str | None) -> None:
    try:
        body = sms.read_body(raw, kind)
    except ValueError:
        return
    sms.read_receipt(body, settings=settings())
    sms.read_incoming(body, settings=settings())


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            {"message_id": "g1", "id": str(OURS), "status": "DELIVERED"},
            Receipt("g1", OURS, "delivered", None),
        ),
        ({"message_id": 7, "status": "Rejected"}, Receipt("7", None, "undelivered", "Rejected")),
        ({"id": str(OURS), "status": "failed"}, Receipt(None, OURS, "undelivered", "failed")),
        ({"message_id": "g1", "status": "queued"}, None),
        ({"message_id": "g1"}, None),
        ({"status": "delivered"}, None),
        ({"id": "not ours", "status": "delivered"}, None),
    ],
)
def test_a_receipt_of_a_gateway_is_read_by_the_names_of_its_fields(
    body: dict[str, Any], expected: Receipt | None
) -> None:
    assert sms.read_receipt(body, settings=settings()) == expected


def test_the_names_of_a_gateways_fields_come_from_settings() -> None:
    given = settings(
        sms_receipt_id_field="reports.0.id",
        sms_receipt_status_field="reports.0.code",
        sms_receipt_delivered="1,11",
        sms_inbound_from_field="sms.from",
        sms_inbound_text_field="sms.words",
    )
    body = {"reports": [{"id": 5, "code": 11}], "sms": {"from": PHONE, "words": "ya"}}
    assert sms.read_receipt(body, settings=given) == Receipt("5", None, "delivered", None)
    assert sms.read_incoming(body, settings=given) == Incoming(None, PHONE, "ya")
    assert sms.read_incoming({"sms": {"from": PHONE}}, settings=given) is None


# --- settings that cannot work --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"channels": "email,email"}, "names a channel twice"),
        ({"sms_url": "gateway.example/send"}, "JANGKAU_SMS_URL is no address of the web"),
        ({"sms_body": '{"text": "{text}"}'}, "no place for the number"),
        ({"sms_body": '{"to": "{to}"}'}, "none for the {text}"),
        ({"sms_body": '{"to": "{to}", "text": "{text}"'}, "JANGKAU_SMS_BODY is not JSON"),
        ({"sms_method": "GET"}, "no place for the number"),
        ({"sms_method": "BREW"}, "sms_method"),
        ({"sms_headers": {"X-Key": "{secret}"}}, "JANGKAU_SMS_SECRET is needed"),
        ({"sms_lookup_url": "http://127.0.0.1:1/"}, "no place for our {id}"),
        (
            {
                "sms_lookup_url": "http://127.0.0.1:1/{id}",
                "sms_body": '{"to": "{to}", "text": "{text}"}',
            },
            "the gateway is never told our {id}",
        ),
        ({"sms_webhook_secret": "short"}, "JANGKAU_SMS_WEBHOOK_SECRET has 5 characters; 16"),
        ({"sms_receipts": True}, "JANGKAU_SMS_RECEIPTS needs JANGKAU_SMS_WEBHOOK_SECRET"),
        ({"sms_rate_per_second": 0}, "greater than 0"),
        ({"sms_concurrency": 0}, "greater than or equal to 1"),
        ({"channels": "twilio"}, "JANGKAU_TWILIO_ACCOUNT_SID and JANGKAU_TWILIO_AUTH_TOKEN"),
        ({**TWILIO, "twilio_from": ""}, "exactly one of them"),
        ({**TWILIO, "twilio_messaging_service_sid": "MG1"}, "exactly one of them"),
        ({"channels": "email", "smtp_from": "Jangkau"}, "JANGKAU_SMTP_FROM is not an address"),
        ({"channels": "email", "smtp_reply_to": "x"}, "JANGKAU_SMTP_REPLY_TO is not an address"),
        ({"channels": "email", "smtp_ca_file": "/nowhere"}, "JANGKAU_SMTP_CA_FILE cannot be read"),
        ({"smtp_security": "ssl"}, "smtp_security"),
        ({"smtp_starttls": True}, "JANGKAU_SMTP_STARTTLS has become JANGKAU_SMTP_SECURITY"),
        ({"channels": "apprise"}, "JANGKAU_APPRISE_URL is needed"),
        ({"channels": "apprise", "apprise_url": "json://127.0.0.1/"}, "reach the same people"),
        ({"channels": "apprise", "apprise_url": "pigeon://{phone}"}, "none that apprise knows"),
        ({"channels": "apprise", "apprise_url": TELEGRAM}, "Telegram knows no telephone numbers"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_a_sentence(
    given: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        settings(**given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"channels": "sandbox"}, "the sandbox reaches nobody"),
        ({"sms_url": "http://gateway.example/"}, "JANGKAU_SMS_URL: .* in clear.*SMS_ALLOW_HTTP"),
        ({**TWILIO, "twilio_url": "http://twilio.example"}, "JANGKAU_TWILIO_URL: .* in clear"),
        ({"channels": "email", "smtp_username": "u"}, "JANGKAU_SMTP_SECURITY: a password"),
    ],
)
def test_outside_development_nothing_goes_over_the_wire_in_clear(
    given: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        production(**given)


@pytest.mark.parametrize(
    "given",
    [
        {"sms_url": "https://gateway.example/"},
        {"sms_url": "http://127.0.0.1:8080/"},
        {"sms_url": "http://gateway.example/", "sms_allow_http": True},
        {**TWILIO},
        {"channels": "email", "smtp_username": "u", "smtp_security": "tls"},
        {"channels": "apprise", "apprise_url": APPRISE},
    ],
)
def test_what_can_work_in_production_starts_there(given: dict[str, Any]) -> None:
    production(**given)


def test_no_secret_of_a_channel_shows_in_what_is_logged() -> None:
    given = production(
        channels="sms,apprise",
        sms_secret="canary-1",
        sms_webhook_secret="canary-2-canary-2",
        sms_authorization="canary-3",
        apprise_url=APPRISE.replace("token", "canary4"),
        twilio_auth_token="canary-5",
        smtp_password="canary-6",
    )
    assert "canary" not in repr(given)
