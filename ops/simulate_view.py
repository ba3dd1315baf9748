"""What one sees of a simulation: a table on the console, and a page for the head of agency."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.console import Console
from rich.table import Table

from ops import simulate
from ops.simulate import Measures

# Colours that also colour-blind people tell apart (Okabe and Ito, 2008), without the yellow, which
# paper swallows; and dashes for a printer without colours.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#7a5195", "#8c6d1f", "#444444")
DASHES = ("", "7 4", "2 3", "9 3 2 3", "4 2", "12 4", "1 4", "6 2 1 2")
# Nearer to each other than this is no difference: one part in fifty.
SAME = 0.02
NOT_SET = "-"


@dataclass(frozen=True)
class Comparison:
    """Some policies beside each other. ``measures`` and ``settings`` go by the policies' names."""

    district: str
    answer_rate: float
    seeds: Sequence[int]
    volunteers: int
    refused: Sequence[str]
    measures: Mapping[str, Measures]
    settings: Mapping[str, Mapping[str, str]]
    command: str

    @property
    def cases(self) -> int:
        """How many cases each policy was played over, in all runs together."""
        return next(iter(self.measures.values())).cases

    @property
    def differences(self) -> dict[str, list[str]]:
        """The settings in which the policies differ: by key, one value per policy."""
        keys = dict.fromkeys(key for settings in self.settings.values() for key in settings)
        found = {
            key: [settings.get(key, NOT_SET) for settings in self.settings.values()] for key in keys
        }
        return {key: values for key, values in found.items() if len(set(values)) > 1}

    def as_dict(self) -> dict[str, Any]:
        """For JSON. Shares are 0 to 1, times minutes, distances kilometres; null: never."""
        return {
            "district": self.district,
            "cases": self.cases,
            "volunteers": self.volunteers,
            "answer_rate": self.answer_rate,
            "seeds": list(self.seeds),
            "refused": list(self.refused),
            "policies": {name: asdict(found) for name, found in self.measures.items()},
            "differences": self.differences,
            "command": self.command,
        }


# --- what is shown of a policy --------------------------------------------------------------------

Value = Callable[[Measures], float | None]


@dataclass(frozen=True)
class Row:
    """One measure: how it is read off, its unit, and whether more of it is better.

    ``name`` is short, for the console. A share is shown in per cent; ``decimals`` are those of the
    shown number.
    """

    key: str
    name: str
    value: Value
    unit: str = ""
    decimals: int = 1
    share: bool = False
    more_is_better: bool = False


ROWS = (
    Row(
        "accepted", "accepted by a volunteer", lambda m: m.accepted, share=True, more_is_better=True
    ),
    Row(
        "minutes_p50", "report to acceptance, p50", lambda m: m.minutes_p50, unit="min", decimals=0
    ),
    Row(
        "minutes_p90", "report to acceptance, p90", lambda m: m.minutes_p90, unit="min", decimals=0
    ),
    Row("urgent_p90", "urgent only, p90", lambda m: m.urgent_p90, unit="min", decimals=0),
    Row("escalated", "coordinator told", lambda m: m.escalated, share=True),
    Row("offers", "offers per case", lambda m: m.offers_per_case),
    Row("sms", "SMS per case", lambda m: m.sms_per_case),
    Row("distance_mean", "distance, mean", lambda m: m.distance_mean_km, unit="km"),
    Row("distance_p90", "distance, p90", lambda m: m.distance_p90_km, unit="km"),
    Row("gini", "load on volunteers, Gini", lambda m: m.gini, decimals=2),
    Row("busiest", "busiest tenth carries", lambda m: m.busiest_tenth, share=True),
)


def rows_of(comparison: Comparison) -> list[Row]:
    """The measures that mean something here: without urgent cases none is said about them."""
    urgent = any(measures.urgent for measures in comparison.measures.values())
    return [row for row in ROWS if urgent or row.key != "urgent_p90"]


TEXTS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "lang": "en",
        "title": "What if the policy were another one?",
        "lead": "{cases} cases, played again under {policies} with the rules that are in force,"
        " {volunteers} volunteers and the same luck for each.",
        "one": "one policy",
        "many": "{count} policies",
        "fastest": "Nine of ten cases have a volunteer soonest with “{name}”: within {minutes}.",
        "others": "With the others: {list}.",
        "never": "never",
        "never_nine": "Under none of the policies nine of ten cases got a volunteer.",
        "cost": "“{name}” costs {sms} SMS per case, asks {offers} volunteers, and a coordinator"
        " hears of {escalated} of the cases.",
        "curve": "How soon a volunteer accepts",
        "curve_help": "Share of all cases that somebody has accepted, by minutes since the report."
        " Higher and farther left is better.",
        "curve_x": "minutes since the report",
        "load": "How the work is spread",
        "load_help": "Share of the accepted cases that the busiest volunteers carry. The nearer to"
        " the thin straight line, the more equal.",
        "load_x": "volunteers, the busiest first",
        "measures": "The measures",
        "settings": "In what the policies differ",
        "same_settings": "There is one policy here: nothing differs.",
        "setting": "setting",
        "best": "best",
        "best_note": "“best” marks the best value; what lies within 2 % of it counts as equal.",
        "runs": "single runs {low} to {high}",
        "how": "How it was calculated",
        "how_text": "Every offer is answered with a probability of {rate}, after {median} in the"
        " median; 70 % of the answers are a yes. Whoever accepts sets out after 10 minutes and"
        " rides at 30 km/h; 3 % meet an obstacle, 3 % hand the case back. A case that nobody has"
        " accepted after 24 hours is settled by the coordinator and counts as not accepted; times"
        " are over all cases. An SMS is an offer, a sentence back, a “need not come” or a word to a"
        " coordinator. These people are a model: compare the policies with each other, and do not"
        " take a figure for a promise.",
        "seeds": "Seed",
        "rate": "Answer rate",
        "refused": "Reports without a usable place, left out",
        "command": "Command",
        "accepted": "Cases that a volunteer accepted",
        "minutes_p50": "Report to acceptance, half of the cases within",
        "minutes_p90": "Report to acceptance, nine of ten within",
        "urgent_p90": "Urgent cases: nine of ten within",
        "escalated": "Cases of which a coordinator was told",
        "offers": "Volunteers asked per case",
        "sms": "SMS per case",
        "distance_mean": "Distance of who accepted, mean",
        "distance_p90": "Distance of who accepted, nine of ten within",
        "gini": "Inequality of the work (Gini: 0 equal, 1 one does all)",
        "busiest": "Cases carried by the busiest tenth of the volunteers",
    },
    "id": {
        "lang": "id",
        "min": "menit",
        "title": "Bagaimana jika kebijakannya lain?",
        "lead": "{cases} kasus, diputar ulang dengan {policies} menurut aturan yang"
        " berlaku, dengan {volunteers} relawan dan keberuntungan yang sama bagi semuanya.",
        "one": "satu kebijakan",
        "many": "{count} kebijakan",
        "fastest": "Paling cepat dengan “{name}”: sembilan dari sepuluh kasus mendapat relawan"
        " dalam {minutes}.",
        "others": "Dengan yang lain: {list}.",
        "never": "tidak tercapai",
        "never_nine": "Tidak ada kebijakan yang memberi relawan bagi sembilan dari sepuluh kasus.",
        "cost": "“{name}” memerlukan {sms} SMS per kasus, rata-rata meminta {offers} relawan, dan"
        " koordinator dikabari tentang {escalated} kasus.",
        "curve": "Seberapa cepat relawan menyanggupi",
        "curve_help": "Bagian dari semua kasus yang sudah disanggupi, menurut menit sejak laporan."
        " Makin tinggi dan makin ke kiri makin baik.",
        "curve_x": "menit sejak laporan",
        "load": "Bagaimana beban kerja terbagi",
        "load_help": "Bagian kasus yang ditangani relawan tersibuk. Makin dekat ke garis lurus"
        " tipis, makin merata.",
        "load_x": "relawan, dari yang tersibuk",
        "measures": "Ukuran",
        "settings": "Yang berbeda di antara kebijakan",
        "same_settings": "Hanya ada satu kebijakan: tidak ada yang berbeda.",
        "setting": "pengaturan",
        "best": "terbaik",
        "best_note": "“terbaik” menandai nilai terbaik; selisih sampai 2 % dianggap sama.",
        "runs": "tiap putaran {low} sampai {high}",
        "how": "Cara menghitung",
        "how_text": "Setiap tawaran dijawab dengan peluang {rate}, dengan median {median}; 70 %"
        " dari jawaban adalah ya. Yang menyanggupi berangkat setelah 10 menit dengan 30 km/jam; 3 %"
        " menemui kendala, 3 % menyerahkan kembali kasusnya. Kasus yang setelah 24 jam belum"
        " disanggupi diselesaikan koordinator dan dihitung tidak disanggupi; waktu dihitung atas"
        " semua kasus. Satu SMS adalah satu tawaran, satu balasan, satu “tidak perlu datang”, atau"
        " satu kabar kepada koordinator. Orang-orang ini model: bandingkan kebijakan satu sama"
        " lain, dan jangan anggap satu angka sebagai janji.",
        "seeds": "Bibit acak",
        "rate": "Tingkat jawaban",
        "refused": "Laporan tanpa tempat yang jelas, tidak dihitung",
        "command": "Perintah",
        "accepted": "Kasus yang disanggupi relawan",
        "minutes_p50": "Laporan sampai disanggupi, separuh kasus dalam",
        "minutes_p90": "Laporan sampai disanggupi, sembilan dari sepuluh dalam",
        "urgent_p90": "Kasus mendesak: sembilan dari sepuluh dalam",
        "escalated": "Kasus yang dikabarkan kepada koordinator",
        "offers": "Relawan yang diminta per kasus",
        "sms": "SMS per kasus",
        "distance_mean": "Jarak yang menyanggupi, rata-rata",
        "distance_p90": "Jarak yang menyanggupi, sembilan dari sepuluh dalam",
        "gini": "Ketimpangan beban (Gini: 0 merata, 1 semua oleh satu orang)",
        "busiest": "Kasus oleh sepersepuluh relawan tersibuk",
    },
}
LANGUAGES = tuple(TEXTS)


def number(value: float, decimals: int, language: str) -> str:
    """A number as it is written in the language."""
    text = f"{value:,.{decimals}f}"
    return text.translate(str.maketrans(",.", ".,")) if language == "id" else text


def shown(row: Row, value: float | None, language: str) -> str:
    """A value with its unit."""
    if value is None:
        return TEXTS[language]["never"]
    if row.share:
        return f"{number(100 * value, row.decimals, language)} %"
    unit = TEXTS[language].get(row.unit, row.unit)
    return f"{number(value, row.decimals, language)} {unit}".strip()


def best_of(row: Row, found: Sequence[Measures]) -> set[int]:
    """Which policies have the best value; nobody where all are as good as each other."""
    values = [row.value(measures) for measures in found]
    known = [value for value in values if value is not None]
    if len(values) < 2 or not known:
        return set()
    top = max(known) if row.more_is_better else min(known)
    best = {
        n for n, value in enumerate(values) if value is not None and abs(value - top) <= SAME * top
    }
    return best if len(best) < len(values) else set()


# --- on the console -------------------------------------------------------------------------------


def show(comparison: Comparison, console: Console) -> None:
    """Draw the policies side by side; the best of each row is bold."""
    found = list(comparison.measures.values())
    runs = f"{len(comparison.seeds)} seeds, " if len(comparison.seeds) > 1 else ""
    table = Table(
        title=f"{comparison.district}: {comparison.cases:,} cases, "
        f"{comparison.volunteers:,} volunteers, {runs}{comparison.answer_rate:.0%} answer",
        title_justify="left",
    )
    table.add_column("", overflow="fold")
    for name in comparison.measures:
        table.add_column(name, justify="right", overflow="fold")
    for row in rows_of(comparison):
        best = best_of(row, found)
        cells = [shown(row, row.value(measures), "en") for measures in found]
        table.add_row(
            row.name,
            *(f"[bold green]{cell}[/]" if n in best else cell for n, cell in enumerate(cells)),
        )
    table.add_row(
        "calculated in", *(f"{measures.seconds:.1f} s" for measures in found), style="dim"
    )
    for key, values in comparison.differences.items():
        table.add_row(key, *values, style="dim")
    console.print(table)
    for sentence in comparison.refused[:5]:
        console.print(sentence, style="yellow", highlight=False, markup=False)
    more = len(comparison.refused) - 5
    if more > 0:
        console.print(f"… and {more} more reports without a usable place.", style="yellow")


# --- the page -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One policy in a chart: points in its coordinates, as SVG wants them."""

    name: str
    colour: str
    dash: str
    points: str


@dataclass(frozen=True)
class Chart:
    """A line chart from (0, 0) to (``to_x``, 1)."""

    lines: Sequence[Line]
    ticks_x: Sequence[tuple[float, str]]
    ticks_y: Sequence[tuple[float, str]]


WIDTH, HEIGHT = 480, 270
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 10, 48


def page(comparison: Comparison, *, language: str) -> str:
    """One self-contained page: no script, nothing is loaded, readable on paper and on a phone."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    texts = TEXTS[language]
    return environment.get_template("simulation.html").render(
        c=comparison,
        t=texts,
        colours=COLOURS,
        dashes=DASHES,
        lead=_lead(comparison, language),
        summary=_summary(comparison, language),
        blocks=[_block(row, comparison, language) for row in rows_of(comparison)],
        curve=_chart(comparison, lambda m: m.curve, to_x=180, language=language),
        load=_chart(comparison, lambda m: m.load, to_x=1, language=language),
        box={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "top": TOP,
             "bottom": HEIGHT - BOTTOM},
        how=texts["how_text"].format(
            rate=f"{100 * comparison.answer_rate:.0f} %",
            median=f"{simulate.ANSWER_MEDIAN.total_seconds() / 60:.0f} {texts.get('min', 'min')}",
        ),
    )  # fmt: skip


def _lead(comparison: Comparison, language: str) -> str:
    texts, count = TEXTS[language], len(comparison.measures)
    return texts["lead"].format(
        cases=number(comparison.cases, 0, language),
        volunteers=number(comparison.volunteers, 0, language),
        policies=texts["one"] if count == 1 else texts["many"].format(count=count),
    )


def _summary(comparison: Comparison, language: str) -> list[str]:
    """The finding in two or three sentences."""
    texts, row = TEXTS[language], next(row for row in ROWS if row.key == "minutes_p90")
    known = {name: m for name, m in comparison.measures.items() if m.minutes_p90 is not None}
    if not known:
        return [texts["never_nine"]]
    fastest = min(known, key=lambda name: known[name].minutes_p90 or 0.0)
    others = [
        f"{name} {shown(row, measures.minutes_p90, language)}"
        for name, measures in comparison.measures.items()
        if name != fastest
    ]
    best = known[fastest]
    return [
        texts["fastest"].format(name=fastest, minutes=shown(row, best.minutes_p90, language)),
        *([texts["others"].format(list=", ".join(others))] if others else []),
        texts["cost"].format(
            name=fastest,
            sms=number(best.sms_per_case, 1, language),
            offers=number(best.offers_per_case, 1, language),
            escalated=f"{number(100 * best.escalated, 0, language)} %",
        ),
    ]


def _block(row: Row, comparison: Comparison, language: str) -> dict[str, Any]:
    """One measure: a bar for each policy, the longest as long as the block is wide."""
    found = list(comparison.measures.values())
    values = [row.value(measures) for measures in found]
    longest = 1.0 if row.share else max((v for v in values if v is not None), default=0.0) or 1.0
    best = best_of(row, found)
    bars = [
        {
            "name": name,
            "colour": COLOURS[n % len(COLOURS)],
            "width": 0.0 if value is None else round(100 * value / longest, 1),
            "text": shown(row, value, language),
            "best": n in best,
            "note": _spread(comparison.measures[name], row, language),
        }
        for n, (name, value) in enumerate(zip(comparison.measures, values, strict=True))
    ]
    return {"title": TEXTS[language][row.key], "bars": bars}


def _spread(measures: Measures, row: Row, language: str) -> str:
    """How far the single runs lie apart; it tells what is luck."""
    low, high = measures.p90_of_runs
    if row.key != "minutes_p90" or low == high:
        return ""
    return TEXTS[language]["runs"].format(
        low=shown(row, low, language), high=shown(row, high, language)
    )


def _chart(
    comparison: Comparison,
    points: Callable[[Measures], Sequence[tuple[float, float]]],
    *,
    to_x: float,
    language: str,
) -> Chart:
    def x_of(x: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * x / to_x, 1)

    def y_of(y: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - y), 1)

    lines = [
        Line(
            name,
            COLOURS[n % len(COLOURS)],
            DASHES[n % len(DASHES)],
            " ".join(f"{x_of(x)},{y_of(y)}" for x, y in points(measures)),
        )
        for n, (name, measures) in enumerate(comparison.measures.items())
    ]
    steps = [to_x * part / 6 for part in range(7)] if to_x > 1 else [0, 0.25, 0.5, 0.75, 1]
    return Chart(
        lines,
        [(x_of(x), f"{x:.0f}" if to_x > 1 else f"{100 * x:.0f} %") for x in steps],
        [(y_of(part / 4), f"{25 * part} %") for part in range(5)],
    )
