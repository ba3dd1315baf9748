"""An act is taken only from a text that is one: sentences from a small grammar, both ways."""

import csv
import random
from itertools import product
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from services.notification.incoming.reading import classify
from services.notification.incoming.reading.lexicon import lexicon
from services.notification.incoming.reading.verdict import LOOKED_AT, PIECES_LOOKED_AT
from tests.typing_errors import mistyped

ACTS = {"accept", "arrived", "done"}
CODE = "W259A"

with Path(__file__).with_name("misleading.csv").open(encoding="utf-8", newline="") as file:
    MISLEADING = list(csv.DictReader(file))


# --- sentences that were written to mislead ----------------------------------------------------


@pytest.mark.parametrize("row", MISLEADING, ids=lambda row: row["text"])
def test_a_misleading_sentence_is_read_as_a_person_reads_it(row: dict[str, str]) -> None:
    for text in (row["text"], f"{row['text']} pak", row["text"].upper()):
        assert classify(text, codes=["K7M2P"]).meaning in {*row["allowed"].split("|"), "ask"}, text


def test_the_plain_acts_beside_them_are_not_asked_back() -> None:
    plain = [row for row in MISLEADING if row["group"] == "plain"]
    back = [row for row in plain if classify(row["text"]).meaning != row["meaning"]]
    assert len(plain) >= 40
    assert back == []


@pytest.mark.parametrize(
    "text",
    [
        "cuti sampai lebaran",
        "W259A sebentar bu, nunggu acara selesai",
        "dinas sampai jumat",
        "pulang kampung sampai lebaran",
        "saya berangkat setelah kerja selesai",
        "pengen bantu tapi motor dipakai, lusa saja",
        "komandan sudah sampai",
        "selesainya kapan",
        "sampai aman",
        "sampai tidak ada kendala",
        "siap sampai",
        "ke lokasi pak",
        "bisa bantu saya",
        "balik dulu pak",
        "bisa kamis",
    ],
)
def test_a_sentence_that_once_was_taken_for_an_act_is_none(text: str) -> None:
    assert classify(text, codes=[CODE]).meaning not in ACTS


# --- from a grammar: another sentence ----------------------------------------------------------

SAYS = (
    "siap", "bisa", "sanggup", "bersedia", "ok", "ya", "baik", "otw", "berangkat", "meluncur",
    "ke sana", "pacak", "saya bisa", "ku pacak", "siap otw", "saya ke lokasi", "sampai", "tiba",
    "sudah sampai", "la sampai", "sdh tiba", "di lokasi", "sudah di lokasi", "nyampe", "selesai",
    "sudah selesai", "beres", "la beres", "tuntas", "sudah diantar ke rsud", "sudah ditangani",
    "tugas selesai", "done", "arrived",
)  # fmt: skip
TWISTS = {
    "time": (
        "besok", "lusa", "nanti", "kelak", "isok", "jam 5", "pukul 14.30", "nanti sore",
        "malam ini", "senin", "hari jumat", "minggu depan", "tanggal 5", "habis magrib",
        "tadi pagi", "kemarin", "3 jam lagi", "2 hari lagi", "bulan puasa", "lebaran", "agik lame",
    ),
    "place": (
        "di rumah", "umah mertua", "di pasar", "ke jakarta", "di kebun", "ke kantor camat",
        "di sekolah", "ke pantai", "di palembang", "sungailiat", "di kolong",
        "rumah sakit jiwa pusat ibukota",
    ),
    "condition": (
        "kalau tidak hujan", "nek sempat", "asal ada bensin", "jika diizinkan", "amun dak ujan",
        "kalo ada motor", "men ade kawan", "if possible", "bila perlu",
    ),
    "somebody": (
        "istri saya", "pak rt", "teman", "urang tu", "polisi", "adik ku", "ambulansnya",
        "pak lurah", "suami", "dia", "beliau yang", "warga", "anak buah", "bapak itu", "tetangga",
        "pak budi",
    ),
    "denial": ("tidak", "belum", "dak", "lum", "bukan", "ndak", "jangan", "ora", "tanpa", "batal"),
    "question": ("apa", "kapan", "siapa", "mana", "berapa", "gimana", "kenapa", "kok", "?"),
    "waiting": (
        "tunggu", "nunggu", "menunggu", "setelah", "sebelum", "sebentar", "sambil", "selama",
        "hampir selesai", "sampai", "dulu", "nunggu acara", "habis", "baru mau",
    ),
    "hearsay": (
        "katanya", "semoga", "mudah2an", "pengen", "mungkin", "kayaknya", "rencananya",
        "seandainya", "kata dokter", "harusnya", "niatnya",
    ),
    "something": (
        "motor", "surat", "makanan", "acara", "rapat", "kerja", "sekolah", "panen", "paket", "sms",
        "hajatan", "listrik", "uang", "data", "jenazah", "kandang ayam",
    ),
}  # fmt: skip


def _is_still_the_act(twist: str, says: str) -> bool:
    """Whether the twist belongs to the act: "dia sudah diantar ke rsud", "sampai di lokasi"."""
    of_the_case = twist in ("dia", "urang tu", "bapak itu") and says.startswith("sudah di")
    repeats = twist == "sampai" and says in ("di lokasi", "ya", "sampai")
    return of_the_case or repeats or twist in says.split()


def _sentences() -> list[str]:
    made = []
    for twists, says in product(TWISTS.values(), SAYS):
        for twist in twists:
            if not _is_still_the_act(twist, says):
                made += [f"{twist} {says}", f"saya {twist} {says}"]
                made += [f"{CODE} {says} {twist}", f"pak {says} {twist} ya"]
    return made


def test_no_act_is_taken_from_a_sentence_with_a_twist() -> None:
    taken = [text for text in _sentences() if classify(text, codes=[CODE]).meaning in ACTS]
    assert len(_sentences()) > 10_000
    assert taken == []


def _with_a_slip(text: str, chance: random.Random) -> str:
    """One word of the text mistyped, unless that makes another word of ours: "adik", "dik"."""
    words = text.split()
    at = chance.randrange(len(words))
    slipped = mistyped(words[at], chance)
    if len(words[at]) >= 4 and slipped not in lexicon().single:
        words[at] = slipped
    return " ".join(words)


# In a clause of their own "siap, sampai" has arrived, and "siap, mana?" asks the way.
APART = ("sampai", "mana")
ANY_TWIST = st.sampled_from(
    [twist for twists in TWISTS.values() for twist in twists if twist not in APART]
)
ADDRESS = st.sampled_from(["", "pak", "bu", "ndan", "maaf pak", "mohon izin", "assalamualaikum"])
CLOSING = st.sampled_from(["", "pak", "ya bu", "terima kasih", "🙏", "...", "!"])


@settings(max_examples=2000, deadline=None)
@given(
    before=ADDRESS, after=CLOSING, says=st.sampled_from(SAYS), twist=ANY_TWIST, more=ANY_TWIST,
    order=st.permutations([0, 1, 2]), join=st.sampled_from([" ", ", ", ". ", " dan ", " tapi "]),
    slips=st.integers(0, 2), coded=st.booleans(), seed=st.integers(0, 2**32),
)  # fmt: skip
def test_no_act_is_taken_however_the_twists_stand(
    before: str, after: str, says: str, twist: str, more: str, order: list[int], join: str,
    slips: int, coded: bool, seed: int,
) -> None:  # fmt: skip
    assume(not _is_still_the_act(twist, says) and not _is_still_the_act(more, says))
    chance = random.Random(seed)
    core = [[says, twist, more][place] for place in order]
    text = join.join(core)
    for _ in range(slips):
        text = _with_a_slip(text, chance)
    text = " ".join(piece for piece in (CODE if coded else "", before, text, after) if piece)
    assert classify(text, codes=[CODE]).meaning not in ACTS, text


def _is_unknown(word: str) -> bool:
    return not lexicon().knows(word)


@settings(max_examples=1000, deadline=None)
@given(
    says=st.sampled_from(SAYS), before=ADDRESS,
    word=st.text("abcdefghijklmnoprstuwy", min_size=4, max_size=12).filter(_is_unknown),
    first=st.booleans(),
)  # fmt: skip
def test_a_word_that_we_do_not_know_makes_an_act_a_question(
    says: str, before: str, word: str, first: bool
) -> None:
    reading = classify(f"{before} {word} {says}" if first else f"{before} {says} {word}")
    # What may be a code of another's is looked up, and asked back where there is none.
    assume(reading.code is None)
    assert reading.meaning not in ACTS, reading


# --- from a grammar: a plain act ---------------------------------------------------------------

PLAIN = {
    "accept": (
        "siap", "bisa", "saya bisa", "ok siap", "siap meluncur", "otw", "saya otw", "berangkat",
        "sanggup", "saya bersedia", "ya saya bisa", "baik saya berangkat", "siap membantu",
        "insyaallah bisa", "ku pacak", "aok pacak", "saya ke lokasi sekarang", "segera ke sana",
        "otw 15 menit", "15 menit lagi sampai", "siap 20 mnt lagi sampai", "lagi di jalan",
        "iya siap",
    ),
    "arrived": (
        "tiba", "sampai", "sudah sampai", "sdh tiba", "saya sudah sampai", "kami sudah tiba",
        "sudah di lokasi", "sampai di lokasi", "la sampai", "ku la nyampe", "saya sudah di tkp",
        "alhamdulillah sudah sampai", "siap, sudah tiba",
    ),
    "done": (
        "selesai", "sudah selesai", "beres", "tugas selesai", "kasus sudah selesai", "la beres",
        "alhamdulillah selesai", "sudah diantar ke rsud", "sudah kami serahkan ke dinsos",
        "selesai, sudah dibawa ke puskesmas", "selesai, dijemput keluarganya", "sudah saya tangani",
        "selesai, orangnya tidak ada", "done",
    ),
}  # fmt: skip
SAID_TO = st.sampled_from(["", "pak ", "bu ", "bang ", "ndan ", "selamat pagi pak, "])
THEN = st.sampled_from(["", " pak", " bu", " kak", " ndan", "!", ".", " 🙏", " pak 🙏"])


@settings(max_examples=1500, deadline=None)
@given(
    meant=st.sampled_from([(meaning, text) for meaning, texts in PLAIN.items() for text in texts]),
    before=SAID_TO, after=THEN, coded=st.sampled_from(["", "first", "last", "lower"]),
    shape=st.sampled_from([str, str.upper, str.capitalize]),
)  # fmt: skip
def test_a_plain_act_is_not_asked_back(
    meant: tuple[str, str], before: str, after: str, coded: str, shape: type[str]
) -> None:
    meaning, text = meant
    said = shape(f"{before}{text}{after}")
    whole = {
        "": said,
        "first": f"{CODE} {said}",
        "last": f"{said} {CODE}",
        "lower": f"{CODE.lower()}: {said}",
    }[coded]
    reading = classify(whole, codes=[CODE])
    assert (reading.meaning, reading.code) == (meaning, CODE if coded else None), whole


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("berangktat pak", "accept"), ("siapp", "accept"), ("siaap meluncr", "accept"),
        ("bsia bu", "accept"), ("sangup", "accept"), ("menujju lokasi saya", "accept"),
        ("sudha sampai pak", "arrived"), ("sdah smpai", "arrived"), ("sudah sampaii", "arrived"),
        ("slesai", "done"), ("selsai pak", "done"), ("seleasi", "done"),
    ],
)  # fmt: skip
def test_a_slip_of_the_thumb_in_a_plain_act_is_forgiven(text: str, meaning: str) -> None:
    assert classify(text).meaning == meaning


# --- how sure "done" is ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "SELESAI", "selesai", "Selesai.", "W259A SELESAI", "selesai w259a", "W259ASELESAI",
        "beres pak", "selesai pak", "done", "alhamdulillah selesai bu, terima kasih",
        "W259A-selesai",
    ],
)  # fmt: skip
def test_the_word_that_we_teach_is_plain(text: str) -> None:
    reading = classify(text, codes=[CODE])
    assert (reading.meaning, reading.plain, reading.outcome) == ("done", True, None)


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("sudah selesai", None), ("tugas selesai", None), ("sudah saya tangani", None),
        ("izin selesai", None), ("selesai semua", None), ("seleasai", None),
        ("selesai, sudah diantar ke RSUD", "referred"), ("sudah dipulangkan", "resolved"),
        ("selesai, orangnya tidak ada", "not_found"),
        ("selesai, ternyata laporan palsu", "cancelled"),
    ],
)  # fmt: skip
def test_what_says_more_than_the_word_is_not_plain(text: str, outcome: str | None) -> None:
    reading = classify(text)
    assert (reading.meaning, reading.plain, reading.outcome) == ("done", False, outcome)


@pytest.mark.parametrize(
    "text", ["YA", "W259A TIBA", "TIDAK", "selesai?", "belum selesai", "libur 3 hari", "jadwal"]
)
def test_only_what_is_done_is_plain(text: str) -> None:
    assert not classify(text, codes=[CODE]).plain


# --- a no is not taken from another sentence ---------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "orangnya sakit", "sudah dirawat di rsud", "dirawat keluarganya",
        "bapak itu tidak mau makan",
        "tidak hujan di sini", "orangnya tidak bisa bicara", "dia lagi rapat", "anak itu sakit",
        "tidak lama lagi", "rifak tidak bisa",
    ],
)  # fmt: skip
def test_what_is_said_of_somebody_else_hands_no_case_back(text: str) -> None:
    assert classify(text).meaning != "decline"


# --- bounds ------------------------------------------------------------------------------------


@pytest.mark.parametrize("tail", [" pak" * PIECES_LOOKED_AT, " " + "p" * LOOKED_AT])
def test_what_is_not_read_to_its_end_is_no_act(tail: str) -> None:
    for text in (f"siap{tail}", f"selesai{tail}", f"W259A tiba{tail}"):
        assert classify(text, codes=[CODE]).meaning == "ask"
