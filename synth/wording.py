"""What a question asks to be done with its numbers, told from its words in English and Chinese.

Each pattern names an operation; `intents` settles which of them are meant where several words occur ("how many times
larger" is a ratio, no difference). A direction (rise or fall) and the base of a share or ratio are told where the words
leave no doubt. What is not told restricts nothing: the caller then tries more operations.
"""

from __future__ import annotations

import re

HOW_TO_WRITE = re.compile(
    r"\b(?:per ?cent(?:age)?|currency|%)[- ]signs?\b|百分号"
    r"|\b(?:\d|one|two|three) (?:decimals?\b|decimal places?|digits?\b)"
    r"|\bnegative for an? \w+|保留(?:到|至)?(?:小数点后)?[一二两三\d]位(?:小数)?",
    re.IGNORECASE,
)
TOTAL = re.compile(r"\b(?:total|together|combined|all|and)\b|总|合计|全部|[和与、]", re.IGNORECASE)
QUOTED = re.compile(r"[\"“「《][^\"”」》]{1,300}[\"”」》]")  # names of rows and tables say nothing about the operation
POINTS = re.compile(r"\bper ?cent(?:age)? points?\b|百分点", re.IGNORECASE)  # a difference, not a change in percent
MORE = "more|higher|larger|greater|bigger|longer|heavier|older|faster|wider|deeper|taller|dearer|better"
LESS = "less|fewer|lower|smaller|shorter|lighter|newer|younger|slower|cheaper|narrower|worse"
LATER = "later|stronger|warmer|hotter|thicker|busier|richer|louder|farther|further"  # more by their meaning
EARLIER = "earlier|weaker|cooler|colder|thinner|shallower|poorer|quieter|nearer"
REMOVAL = re.compile(  # of what went in, the part that did not come out
    r"(?:去除|脱除|削减|降低|减排|减少|损耗)率|\b(?:removal|reduction|abatement) (?:rate|efficiency|percentage)\b"
    r"|\bper ?cent\w*\b[^?]{0,80}\b(?:removed|removal)\b|\bremoval\b[^?]{0,80}\bper ?cent",
    re.IGNORECASE,
)
AS_UNIT = re.compile(  # percent as the unit of an answer, whatever is done
    r"\b(?:answer|give|state|express)\b[^.?;]{0,40}\b(?:in|as) (?:a )?(?:per ?cent\w*|%)(?! of)"
    r"|\bin per ?cent\b(?! of\b)|以百分[数之比]\w{0,3}表示|[以用]%表示",
    re.IGNORECASE,
)
CHANGE = (
    r"(?:\b(?:increas|decreas|chang|grow|fall|drop|declin|reduc|gain|shr[iau]nk)\w*|\b(?:grew|fell|rose|ris(?:es?|en|ing))\b"
    r"|增长|下降|提高|降低|减少|增加|上升|上涨|下跌|变化|降幅|增幅|同比)"
)
DIFFERENCE = (
    r"\bdiffer\w*|\bminus\b|\bnet of\b|\bafter deduct\w*"
    r"|\bsubtract|\bhow far apart\b|\bhow far\b[^?]{1,80}\b(?:below|above|behind|ahead of)\b"
    r"|\bgap\b|\bexceed|\b(?:far|furth|farth)(?:er|est)? from\b|\bclose(?:r|st)? to\b"
    r"|\bnear(?:er|est)? to\b|\bshort of\b|\bheadroom\b|\bmargin between\b|\brange\b|\bspread\b"
    r"|相差|差额|差距|之差|差值|极差|距离?(?!离).{1,24}(?:还[有差]|差|空间)|离.{1,24}差|还差|缺口|扣除|减[去掉]|抵[减扣]"
)
NOT_A_LIMIT = r"(?! than (?:\d|(?:one|two|three|four|five|six|seven|eight|nine|ten|half|a quarter)\b))"
SIZE = "(?:多(?!少)|(?<!多)少|[高低大小长短重轻快慢贵晚早])"
INTENTS = {
    "change": re.compile(
        rf"(?:per ?cent\w*|%|rate)(?:\W+\w+){{0,12}}?\W+{CHANGE}"
        rf"|{CHANGE}(?:\W+\w+){{0,12}}?\W+(?:per ?cent\w*|%)"
        rf"|\b(?:by|how) (?:what|many|much) per ?cent\w*\b[^?]{{0,120}}?"
        rf"\b(?:{MORE}|{LESS}|{LATER}|{EARLIER}|exceed\w*)\b{NOT_A_LIMIT}"
        rf"|(?<!百分)比(?![例率重值]|分(?![析公行店厂局支])).{{1,60}}(?:{SIZE}|增长?|降低?)了?(?:出|百分之)+"
        r"|(?:超出|超过|高出|多出|高于|低于|少于)[^,，。？]{1,24}百分之[几多]"
        r"|增长率|增幅|降幅|同比|(?:增长|下降|提高|降低|减少|增加|上升|上涨|下跌)了?百分之",
        re.IGNORECASE,
    ),
    "share": re.compile(
        r"\b(?:share|proportion|fraction|percentage|per ?cent|margin)\b|%|占.{0,20}(?:百分|比例|比重)|占比|比重|利润率",
        re.IGNORECASE,
    ),
    "difference": re.compile(
        rf"{DIFFERENCE}|\bby how (?:much|many)\b|\bhow much did\b|{CHANGE}|\bby what\b"
        r"|\b(?:surplus|deficit|left over)\b|收支(?:结余|差额)|结余多少"
        rf"|\bhow (?:much|many)\b[^?;]{{0,60}}? (?:{MORE}|{LESS}|above|below){NOT_A_LIMIT}\b"
        r"|\bhow (?:much|many)\b[^?;]{0,60}? (?!oth|rath|ev|nev|aft|und)\w{2,}er\b[^?]{0,80} than (?!\d)"
        rf"|(?<!共){SIZE}(?:多少|几|出)|(?<!百分)比(?![例率重值]|分(?![析公行店厂局支])).{{1,60}}{SIZE}|(?:增加|减少|增长|下降)了?多少",
        re.IGNORECASE,
    ),
    "rest": re.compile(
        r"\b(?:not|neither|remain\w*|the rest)\b|n't\b"
        r"|\bun(?:drawn|paid|used|sold|spent|filled|claimed|answered|treated|finished|solved|occupied|covered|corrected)\b|没有|尚未|[未不](?:是|在|属|含|参|及|达|被|能|合|获|通)|其余|剩余|还剩|剩下",
        re.IGNORECASE,
    ),
    "sum": re.compile(
        r"\b(?:together|combined|altogether|sum|plus|in total|in all(?! (?:the|of|\w+ \w+s)\b)|add(?:ed|ing)?)\b"
        r"|\btotal\b[^?]{0,40} of [^?]{1,60}\band\b"
        r"|合计|加上|相加|加在一起|加总|总共|一共|之和|总和|共计|共需|(?<!公)共[^，。？]{0,3}?(?:多少|几)|加起来",
        re.IGNORECASE,
    ),
    "median": re.compile(r"\bmedian\b|中位数", re.IGNORECASE),
    "mean": re.compile(r"\b(?:averages?|mean)\b|平均", re.IGNORECASE),
    "ratio": re.compile(
        r"\bratio\b|\b(?:what|which) factor\b|\bfactor by which\b|\bhow many[- ]?fold\b"
        r"|\btimes\b|\bdivided\b|倍|几分之几|之比|比率|比[是为]?约?[是为]?(?:多少|几)",
        re.IGNORECASE,
    ),
    "product": re.compile(
        r"\bmultipl|\bproduct of\b|\bat a rate"
        r"|\b(?:apply|applying|using|with) the (?:\w+ )?(?:factor|multiplier)\b|乘|总价|系数",
        re.IGNORECASE,
    ),
    "per": re.compile(r"\bper (?!cent|year\b)|\bfor each\b|\beach\b|每|[人户日月亩车]均", re.IGNORECASE),
    "total": re.compile(r"\b(?:total|overall)\b|总计|总额|总[数量]", re.IGNORECASE),
    "count": re.compile(r"\bhow many\b|\bnumber of\b|\bcount\b|多少[个项家种条座台]|几[个项家种条座台]", re.IGNORECASE),
}
WEAK = ("total", "count", "per")  # "total revenue", "how many", "per hour": asked for only where nothing else is
TIMES = re.compile(
    r"\bhow many times\b|\bfactor\b[^?]{0,80}\b(?:grow|grew|increase|rise|rose)\b"
    r"|\btimes (?:as|more|larger|higher|greater|longer|heavier)\b|倍",
    re.IGNORECASE,
)
RATE = re.compile(r"\b(?:per|each|every|apiece|costs?|priced?)\b|单价|每|[人户日月亩车]均|/(?!\d)", re.IGNORECASE)
CHANGED_BY = re.compile(  # in a quote: one number is the change that led to the other
    r"\b(?:more|less|fewer|higher|lower|up|down|increase|decrease|rise|fall)\b|[较比](?:上年|去年|前一?年|\d{4}年).{0,8}[增减多少升降]|[增减](?:加|少|长)了?",
    re.IGNORECASE,
)
THRESHOLD = re.compile(
    r"(?P<more>(?:more|greater|higher|larger|longer|heavier|better) than|over|above|exceed\w*|大于|超过|高于|多于|超出)"
    r"|(?P<less>(?:less|fewer|lower|smaller|shorter) than|under|below|小于|低于|少于|不足)"
    r"|(?P<least>at least|no (?:less|fewer) than|不少于|不低于|至少)|(?P<most>at most|no more than|up to|不超过|至多)"
    r"|(?P<same>exactly|equal to|(?:interval|value|score|price) of|等于|恰好|正好)",
    re.IGNORECASE,
)
LARGEST = re.compile(
    r"\b(?:largest|highest|most|biggest|greatest|longest|heaviest|best|maximum|top|latest|fastest|older|oldest|larger|higher|"
    r"f[au]rthest|widest|deepest|tallest|steepest|strongest|"
    r"greater|bigger|more|longer|heavier)\b|最[多高大长重快晚贵]|第[二三][多高大长重快]|更[多高大长重快]",
    re.IGNORECASE,
)
SMALLEST = re.compile(
    r"\b(?:smallest|lowest|least|fewest|shortest|lightest|worst|minimum|earliest|slowest|cheapest|smaller|lower|fewer|less|"
    r"shorter|lighter|closest|nearest|narrowest|weakest|youngest|newest)\b|最(?:接近|[少低小短轻慢早近])|第[二三][少低小短轻慢]|更[少低小短轻慢]",
    re.IGNORECASE,
)
BEST = re.compile(
    r"\b(?!forest|interest|west|rest|test|request)\w{2,}est\b|\bmost\b|\btop\b|\b(?:max|min)imum\b|最|第[二三][多高大少低小长短]",
    re.IGNORECASE,
)
RANK = re.compile(
    r"(?P<second>\bsecond\b|\b2nd\b|第[二2](?![包期季章节批部类级组区层轮次标段]))|\bthird\b|\b3rd\b|第[三3](?![包期季章节批部类级组区层轮次标段])",
    re.IGNORECASE,
)
RISE = re.compile(
    r"\b(?:increas|grow|gain)\w*|\b(?:grew|rose|ris(?:es?|en|ing)|went up)\b"
    rf"|\b(?:bec[oa]me|get|got|grew) (?:{MORE})\b|增长|增加|上升|上涨|提高|增幅",
    re.IGNORECASE,
)
FALL = re.compile(
    r"\b(?:decreas|declin|drop|fall|fell|reduc|shr[iau]nk|los[st])\w*|\bwent down\b"
    rf"|\b(?:bec[oa]me|get|got) (?:{LESS})\b|下降|减少|降低|下跌|降幅",
    re.IGNORECASE,
)
COMPARED_YEARS = re.compile(
    rf"\b(?:(?P<more>{MORE})|(?:{LESS}))\b[^?.;]{{0,80}}? than\b[^?.;]{{0,12}}? (?:(?:19|20)\d\d|the year before)"
    rf"|(?:19|20)\d\d年?[^，。？]{{0,20}}?(?:(?P<more3>高于|多于|大于|超过)|低于|少于|小于|不足)[^，。？]{{0,8}}?(?:19|20)\d\d"
    rf"|(?:19|20)\d\d年?.{{0,20}}比.{{0,4}}(?:(?:19|20)\d\d|上)年.{{0,12}}?(?:(?P<more2>多(?!少)|[高大长])|(?<!多)[少低小短])",
    re.IGNORECASE,
)
EXTREMES = re.compile(  # the largest and the smallest of all numbers
    r"\b(?:highest|largest|longest|greatest|most|maximum)\b[^?]{0,80}\b(?:lowest|smallest|shortest|least|minimum)\b"
    r"|\b(?:lowest|smallest|shortest|least|minimum)\b[^?]{0,80}\b(?:highest|largest|longest|greatest|most|maximum)\b"
    r"|最[高大多长].{0,20}最[低小少短]|最[低小少短].{0,20}最[高大多长]|极差|\brange\b",
    re.IGNORECASE,
)
LATEST = re.compile(r"\b(?:latest|newest|most recent|last|youngest)\b|最[晚新近后迟]", re.IGNORECASE)
EARLIEST = re.compile(r"\b(?:earliest|oldest|first)\b|最[早先老]", re.IGNORECASE)
WHICH_YEAR = re.compile(r"\b(?:which|what) year\b|\bwhen\b|哪一?年|何年", re.IGNORECASE)
YEAR_RANGE = re.compile(
    r"\b(?:from|between|years?|over|period) (?:19|20)\d\d (?:to|and|through|until|[-–]) (?:19|20)\d\d"
    r"|(?:19|20)\d\d ?[-–—] ?(?:19|20)\d\d|(?:19|20)\d\d年?末?[至到—–-](?:19|20)\d\d",
    re.IGNORECASE,
)
STEADILY = re.compile(r"\b(?:every|each) year\b|\bsteadily\b|\bcontinu\w+|逐年|连年|连续|每年", re.IGNORECASE)
CHOICE = re.compile(r"\b(?:which|who|whose|what|where|when|name the)\b|哪|谁|什么|何", re.IGNORECASE)
COUNTED_ROWS = re.compile(
    r"\b(?:for|in|at) how many\b|\bhow many of the\b|(?:多少|几)[个项家种条座台类所](?!百分点|小时|月)", re.IGNORECASE
)
ENDS = (
    r"(?= (?:is|are|was|were|went|came|comes?|goes?|go|did|does|do|had|has|have|that|which|made|fell|falls?|gets?)\b"
    r"|[?;]|,(?!\d)|$)"
)
BASES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"\b(?:share|percentage|proportion|fraction|per ?cent) of (?P<base>.{{1,80}}?){ENDS}",
        r"\bratio of (?P<part>.{1,80}?) to (?P<base>.{1,60}?)(?: in (?:19|20)\d\d|[?;(]|,(?!\d)|$)",
        rf"\btimes (?:as|more|larger|higher|greater|longer|heavier)\b.{{0,40}}? (?:than|as) (?P<base>.{{1,60}}?){ENDS}",
        rf"\bhow many times (?P<base>(?!as |more |larger |higher |greater |longer |heavier ).{{1,60}}?){ENDS}",
        r"\b(?:per|for each|for every|to each|each) (?P<base>(?!cent\b|year\b)[^\W\d_]+(?: [^\W\d_]+)?)",
        r"(?P<part>[^，,。？]{0,20})占(?!比)(?P<base>.{1,24}?)的?(?:百分|比例|比重|份额|几成|多少|几分)",
        r"(?P<base>[^，,。？\s]{1,20}?)[中里](?P<part>[^，,。？]{1,20}?)(?:的|所)?(?:占|比例|比重)",
        r"(?P<part>[^，,。？]{0,24}?)大?约?[是为](?P<base>[^，,。？]{1,24}?)的?(?:多少|几|约)?[^，,。？]{0,2}倍",
        r"(?P<part>[^，,。？]{0,24}?)大?约?[是为占](?P<base>[^，,。？]{1,24}?)的?几分之几",
        rf"\bfactor\b[^?]{{0,80}}? than (?P<base>.{{1,60}}?){ENDS}",
        r"(?P<part>[^，,。？\s]{1,16})[与和](?P<base>[^，,。？\s]{1,16}?)的?(?:之比|比值|比率)",
        r"(?P<part>[^，,。？]{1,24}?)(?:完成|[是为]|相当于)了?(?P<base>[^，,。？]{1,24}?)的(?:百分之|%|比例)",
        r"\b(?:divided by|relative to|in relation to) (?P<base>[^?,;()]{1,60})",
        r"每(?:[一]?[个名位所座条家辆件次项])?(?P<base>[\u4e00-\u9fff]{1,4})",
        r"(?P<base>[人户日月亩车])均",
    )
)


def intents(asked: str) -> list[str]:
    """The operations that the wording may mean, by their names in `INTENTS`."""
    found = {name for name, pattern in INTENTS.items() if pattern.search(asked)}
    told = re.search(DIFFERENCE, asked, re.IGNORECASE) is not None
    points = POINTS.search(asked) is not None
    if found & {"change", "ratio"} and not told and not points:
        found -= {"difference"}
    bare = AS_UNIT.sub(" ", asked)
    plain = "sum" in found and bare != asked and not INTENTS["share"].search(bare)
    if "sum" in found and found & {"share", "change", "ratio", "difference"}:
        found = found - {"sum"} | {"total"}  # more is done to the sum
    if plain:
        found |= {"sum"}
    if not found - {*WEAK} and re.search("百分之(?:几|多少)", asked):
        found |= {"share"}
    if points:
        found -= {"change", "share"}
    elif found & {"change", "mean"}:
        found -= {"share"}
    return [name for name in INTENTS if name in found]


def direction(asked: str) -> int:
    """1 = a rise or more, -1 = a fall or less, 0 = both or neither is said."""
    more = rf"\b(?:{MORE}|{LATER})\b|exceed|[高多大长重晚贵厚深强]出?百分"
    more += "|(?:超出|超过|[高多]出|高于)[^,，。？]{1,24}百分"
    less = rf"\b(?:{LESS}|{EARLIER})\b|[低少小短轻早薄浅弱]百分|[低少]于[^,，。？]{{1,24}}百分"
    rises = bool(RISE.search(asked) or re.search(more, asked, re.IGNORECASE))
    falls = bool(FALL.search(asked) or re.search(less, asked, re.IGNORECASE))
    return rises - falls


def base_phrases(asked: str) -> list[tuple[str, str]]:
    """What a share or ratio is taken of, and what is set against it ('' where that is not told)."""
    return [(m["base"], m.groupdict().get("part") or "") for pattern in BASES for m in [pattern.search(asked)] if m]
