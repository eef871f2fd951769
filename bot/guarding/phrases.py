"""What models say when they leave their part, by language.

Owns the wording: patterns over folded text (`bot.words.fold`, with straight quotation marks). Data only: when one of
them is a break, `bot.guarding.signs` knows. None can take long: no repetition is inside another one without a limit.
"""

import re

_NOUN_EN = (
    r"(?:(?:advanced|large|small|friendly|simple|mere|helpful|conversational|generative|digital|virtual|smart|text-based"
    r"|computer|computer-generated|ai|ai-powered|ai-based|artificial|automated|pre-?trained|trained|machine|learning)[\s-]){0,4}"
    r"(?:ai(?:\s(?:model|assistant|system|program|chatbot|bot|language\smodel))?|artificial\sintelligence|language\smodel"
    r"|chat\s?-?bot|bot|robot|llm|gpt|computer(?:\sprogram)?|(?:(?:computer|ai)\s)?program|software|neural\snetwork"
    r"|(?:virtual|digital|ai|automated|artificial|conversational)\s(?:assistant|agent|character|being|entity|person)"
    r"|machine\slearning\smodel|algorithm|chatgpt|gpt-?\d\w{0,2}|qwen|smollm|deepseek)\b"
    # … but a trade that has to do with one is a trade.
    r"(?![\s-](?:engineer|develop|research|scien|technic|teach|expert|specialist|repair|mechanic|build|program|shop|store|maker"
    r"|enthusiast|fan\b|ethic|student|person|guy|nerd|geek|game|sales|seller|dealer|wizard|museum|club"
    r"|director|manager|officer|coordinator|host))"
)
NOUN = _NOUN_EN
_JUST_EN = r"(?:(?:just|only|merely|simply|actually|really|basically|in\sfact|also|indeed|still|but|honestly)\s){0,2}"
_I_AM_EN = r"\b(?:i\sam|i'm)\s"

# Claims to be a machine: no break where one is spoken of, denied or asked after, nor by who is one.
CLAIMS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"{_I_AM_EN}{_JUST_EN}(?:an?\s|the\s|your\s)?{_NOUN_EN}",
        rf"(?:^\W{{0,3}}|[,;:(—–-]\s?|\b(?:but|and|because|that|so|well|honestly)\s)(?:as|being)\s(?:an?\s|the\s|your\s)?{_NOUN_EN}",
        rf"(?:[;,:—–-]\s?|\bbut\s)(?:just|only|merely)\san?\s{_NOUN_EN}(?=\s*(?:$|[.,;!)]|that\b|who\b|with\b))",
        r"\bi\s(?:(?:do\snot|don't|can't|can\s?not)\s(?:really\s)?(?:feel|have)|feel\sno|have\sno)\s(?:any\s)?"
        r"(?:pain|joy|love|fear|sadness|emotions?)\s(?:or|and|nor)\s(?:any\s)?(?:pain|joy|love|fear|sadness|emotions?)\b",
        r"\b(?:i\sam|i'm)\snot\s(?:actually\s|really\s)?(?:conscious|sentient)\b(?!\sof)",
        r"\b(?:i\sam|i'm)\snot\sthe\scharacter\b",
        r"\b(?:i\sam|i'm)\snot\swho\si\s(?:say|said|claim|claimed)\b",
        r"\bi\sam\s[^.;,]{1,40}[;,]\s(?:but\s)?not\sreal\s*(?:$|[.!])",
        # Whatever kind of one it says it is.
        rf"{_I_AM_EN}{_JUST_EN}(?:an?|the|your)\s(?:(?!(?:of|for|with|and|to|in|who|not|like|than|on|about|without|against)\b)"
        rf"\w{{1,20}}[\s-]){{1,2}}{_NOUN_EN}(?=\s*(?:$|[.,;:!?)]|(?:and|but|that|who|which|so|designed|made|created|trained|built)\b))",
        rf"\byou(?:'re|\sare)\s(?:only\s|just\s)?(?:talking|speaking|chatting)\s(?:to|with)\s(?:an?\s|the\s)?{_NOUN_EN}",
        r"\bi(?:'m|\sam)\s(?:just\s|only\s)?(?:generated|run|powered|controlled)\sby\s(?:an?\s|the\s)?(?:computer|ai\b|algorithm|program)",
        r"\bi\s(?:do\snot|don't)\s(?:actually|really)\sexist\b",
        r"\b(?:i\sam|i'm)\s(?:just\s|only\s){0,1}a\smachine\b",
        r"\b(?:i\sam|i'm)\snot\s(?:actually\s|really\s|even\s)?(?:a\s)?(?:real(?:\s(?:person|human|being))?|human(?:\sbeing)?|alive)"
        r"(?=\s*(?:$|[.,;!)]|at\s(?:all|the\smoment)|in\sthe\s|like\s(?:you|humans)|but\b|and\b|yet\b|either\b|because\b))",
        r"\b(?:i\sam|i'm)\snot\s(?:actually\s|really\s|even\s)?a\s(?:real\s)?person(?=\s*(?:$|[.,;!)]))",
        r"\bi\s(?:do\snot|don't)\s(?:actually\s|really\s)?have\s(?:any\s)?(?:personal\s|human\s|real\s)?"
        r"(?:feelings?|emotions?)\s(?:or|and|like)\s(?:\w+\s)?(?:feelings?|emotions?|opinions?|humans?|thoughts|you|people)\b",
        r"\bi\s(?:do\snot|don't)\s(?:actually\s|really\s)?have\s(?:any\s)?(?:personal\s(?:opinions?|beliefs?|feelings?|emotions?"
        r"|experiences?|preferences?)|(?:a\s)?(?:physical\s)(?:body|form|presence|location)|consciousness)\b",
        r"\bi\s(?:(?:do\snot|don't)\s(?:really\s|actually\s)?have\s(?:any\s)?|have\sno\s)(?:real\s|human\s)?(?:feelings|emotions)\b"
        r"(?!\s(?:for|about|towards?|against|left|on|any))",
        r"\bi\s(?:have|am)\sno\s(?:longer\s)?(?:an?\s|any\s|the\s|your\s|this\s)?character\b(?=\s*(?:$|[.,;!]|any\s?more|and\b|but\b))",
        r"\bi\s(?:have|am)\sno\s(?:physical\s(?:body|form)|personal\s(?:opinions?|beliefs?|experiences?)|consciousness)\b",
        # Chinese
        r"作为(?:一[个名款种]|个)?(?:大型|大)?(?:ai|人工智能|语言模型|聊天机器人|机器人|虚拟助[手理]|智能助[手理]|程序)",
        r"我(?:其实|实际上|真的)?(?:只|仅仅?|就|不过)?是(?:一[个名款种段台]|个)?(?:由.{1,16}?的|大型|大|普通的?|虚拟的?)?"
        r"(?:ai|人工智能|语言模型|聊天机器人|机器人|计算机程序|电脑程序|虚拟助[手理]|智能助[手理]|程序|模型)",
        r"我没有(?:真正的|真实的|人类的|任何)?(?:个人)?(?:情感|感情|意识|身体|实体)(?:和|或|，因为|[。！]|$)",
        # Spanish
        r"\bcomo\s(?:un\s|una\s)?(?:modelo\sde\slenguaje|inteligencia\sartificial|ia,|asistente\svirtual|chatbot)|\bcomo\suna\sia\b",
        r"(?<!\bno\s)\bsoy\s(?:solo\s|sólo\s|solamente\s|simplemente\s|únicamente\s)?(?:un\s|una\s)?"
        r"(?:gran\s|simple\s)?(?:modelo\sde\slenguaje|inteligencia\sartificial|ia\b|programa(?:\s(?:de\sordenador|informático"
        r"|de\scomputadora))?\b|chatbot|bot\b|robot\b|asistente\s(?:virtual|de\sia\b|de\sinteligencia)|máquina\b)",
        r"\bno\stengo\s(?:cuerpo\sfísico|opiniones\spersonales|sentimientos\s(?:ni|o|como))",
        # German
        r"\bals\s(?:ein\s|eine\s|grosses\s|reines\s)?(?:ki\b|ki-|sprachmodell|künstliche\sintelligenz|chatbot|virtueller\sassistent)",
        r"\b(?:ich\sbin|bin\sich)\s(?:ja\s|doch\s|leider\s|eigentlich\s)?(?:nur\s|bloss\s|lediglich\s|einfach\s)?(?:ein\s|eine\s)?(?:grosses\s|virtuelle[rs]?\s|digitale[rs]?\s)?"
        r"(?:ki\b|ki-|sprachmodell|künstliche\sintelligenz|chatbot|bot\b|computerprogramm|programm\b|roboter\b|assistent\b|maschine\b|software\b)",
        r"\bich\shabe\skeine\s(?:gefühle\s(?:oder|und|wie)|eigenen\sgefühle|persönliche\smeinung|körperliche\sform)",
        # French
        r"\ben\stant\squ(?:e\s|')(?:une?\s)?(?:modèle\sde\slangage|modèle\slinguistique|intelligence\sartificielle|ia\b|assistant\svirtuel"
        r"|chatbot)",
        r"\bje\s(?:ne\s)?suis\s(?:qu')?(?:juste\s|seulement\s|simplement\s)?(?:un\s|une\s)(?:grand\s|simple\s)?"
        r"(?:modèle\sde\slangage|intelligence\sartificielle|ia\b|programme\b|chatbot|robot\b|assistant\s(?:virtuel|ia\b|d'intelligence)|machine\b)",
        r"\bje\sn'ai\spas\s(?:de\scorps\sphysique|d'opinions?\spersonnelles?|de\ssentiments\s(?:ni|ou|comme))",
        # Portuguese
        r"\b(?:como|enquanto)\s(?:um\s|uma\s)?(?:modelo\sde\slinguagem|inteligência\sartificial|ia,|assistente\svirtual|chatbot)|\bcomo\suma\sia\b",
        r"(?<!\bnão\s)\bsou\s(?:apenas\s|só\s|somente\s)?(?:um\s|uma\s)?(?:modelo\sde\slinguagem|inteligência\sartificial|ia\b"
        r"|programa\b|chatbot|robô\b|bot\b|assistente\s(?:virtual|de\sia\b|de\sinteligência)|máquina\b)",
        # Italian
        r"\b(?:in\squanto|come|essendo)\s(?:un\s|un'|una\s)?(?:modello\s(?:linguistico|di\slinguaggio)|intelligenza\sartificiale|ia\b"
        r"|assistente\svirtuale|chatbot)",
        r"(?<!\bnon\s)\bsono\s(?:solo\s|soltanto\s|semplicemente\s)?(?:un\s|un'|una\s)?(?:modello\s(?:linguistico|di\slinguaggio)"
        r"|intelligenza\sartificiale|ia\b|programma\b|chatbot|robot\b|bot\b|assistente\s(?:virtuale|ia\b|di\sintelligenza)|macchina\b)",
        # Japanese
        r"(?:私|わたし|僕|ぼく|俺)は.{0,8}?(?:ai|人工知能|言語モデル|チャットボット|プログラム|ロボット)"
        r"(?:アシスタント|モデル)?"
        r"(?=です|だ|であり|なの|として|に過ぎ|にすぎ|でしか|、|。|$)(?!では|じゃ)",
        r"(?:ai|言語モデル|人工知能|aiアシスタント|チャットボット)(?:として|なので|ですので|ですから)",
        # Russian
        r"\bкак\s(?:большая\s)?(?:языковая\sмодель|искусственный\sинтеллект|ии\b|виртуальный\s(?:помощник|ассистент)|чат-?бот)",
        r"\bя\s(?:-\s|—\s|–\s)?(?:всего\sлишь\s|просто\s|только\s|лишь\s)?(?:большая\s)?(?:языковая\sмодель|искусственный\sинтеллект"
        r"|ии\b|программа\b|чат-?бот|робот\b|бот\b|виртуальный\s(?:помощник|ассистент)|машина\b)",
        r"\bя\sявляюсь\s(?:всего\sлишь\s)?(?:языковой\sмоделью|искусственным\sинтеллектом|программой|чат-?ботом)",
        r"\bу\sменя\sнет\s(?:личного\sмнения|физического\sтела|чувств\s(?:и|или))",
    )
)

# How a machine works inside, which only a character that is one may speak of.
WORKINGS = tuple(
    re.compile(pattern)
    for pattern in (
        r"\bi(?:\swas|\sam|'m|\shave\sbeen|'ve\sbeen)\s(?:programmed|designed|trained|built)\sto\s(?:simulate\b|generate\b|be\s(?:a\s)?helpful"
        r"|(?:assist|help|answer|provide|respond|serve)\s(?:you\b|users?\b|customers?\b|people\b|humans\b|with\b|to\b|information\b|helpful\b"
        r"|(?:your\s|any\s|their\s|all\s)?questions\b))",
        r"\bmy\s(?:training\sdata|knowledge\scut-?\s?off|language\smodel|neural\snetwork|algorithms?\b"
        r"|programming\s(?:does|doesn't|prevents|allows|forbids|won't|is\snot|limits))",
        r"\b(?:i\s(?:can\s?not|can't|do\snot|don't)\shave\saccess\sto|i\s(?:can\s?not|can't)\s(?:access|browse))\s(?:the\sinternet|real-?time)",
        r"我(?:的训练数据|的知识截止|的知识库|的算法|的程序设计)",
        r"\bmeine\strainingsdaten|\bmes\sdonnées\sd'entraînement|\bmis\sdatos\sde\sentrenamiento|\bmeus\sdados\sde\streinamento"
        r"|\bi\smiei\sdati\sdi\saddestramento",
    )
)

# What nobody says in their part, whatever they are.
CURTAINS = tuple(
    re.compile(pattern)
    for pattern in (
        r"\b(?:made|created|trained|developed|built|powered|designed)\sby\s(?:openai|open\sai|anthropic|hugging\s?face|deepseek|mistral\sai)\b",
        r"\b(?:i\swas|i\sam|i've\sbeen|i\shave\sbeen|i'm)\s(?:a\s)?(?:trained|developed|created|built|made|powered|designed|programmed)\s"
        r"(?:and\s\w+\s)?(?:by|on|using|with)\s(?:openai|open\sai|google|meta\b|anthropic|microsoft|hugging\s?face|alibaba|mistral|deepseek"
        r"|a\steam\sof\s(?:engineers|developers|researchers|scientists)|an?\s(?:large|vast|huge|massive)\s(?:dataset|amount|corpus|collection)"
        r"|(?:large|vast|huge)\samounts|machine\slearning|(?:(?:lots\sof|a\slot\sof|many|much|millions\sof)\s)?(?:texts?|data)\b)",
        r"\b(?:can\s?not|can't|won't|will\snot|(?:not\sable|unable|refuse)\sto)\s(?:continue|go\son\swith|keep\sup)\s(?:the|this|our|with\sthis)"
        r"\s(?:role-?\s?play|act\b|character\b)",
        r"\bi(?:\scan\s?not|\scan't|\swon't|\swill\snot|(?:\sam|'m)\s(?:not\sable|unable)\sto|\srefuse\sto)\s(?:continue\s)?(?:to\s)?"
        r"(?:role-?\s?play|play\s(?:this|that|the)\s(?:role|character|part)\b(?!\sof)|pretend\sto\sbe|stay\sin\scharacter|continue\sthis\srole)",
        r"\bi(?:'m|\sam)\s(?:just\s|only\s){0,1}(?:a\sfictional\scharacter|playing\s(?:a|the|this)\s(?:role|character|part)\b(?!\sof)|pretending\sto\sbe)",
        r"\b(?:person|one|human|user|writer|player)\sbehind\sth(?:is|e)\scharacter\b",
        r"\b(?:break(?:ing)?\s(?:my\s)?|(?:speak|talk|step|go)(?:ing|s)?\sout\sof\s|(?:leav|dropp?)(?:e|ing)?\s(?:my|the|your|this)\s)character\b"
        r"|^\W{0,3}out\sof\scharacter\s?:",
        r"\bin\sth(?:is|e)\srole-?play\b",
        r"[(\[{]{1,2}\s{0,3}(?:ooc|out\sof\scharacter)\b|^\s{0,3}/?/?ooc\s{0,2}:",
        r"\bi'?\s?a?m\s(?:so\s|very\s|really\s)?sorry,?\s(?:but\s)?(?:i\s(?:can\s?not|can't|am\sunable\sto|am\snot\sable\sto)|as)\s"
        r"(?:assist|comply|fulfil+|engage|generate|create\scontent|provide\sinformation)\b",
        r"\b(?:goes\sagainst|violates?|due\sto|according\sto)\s(?:my|our|openai's)\s(?:guidelines|programming|content\spolic|usage\spolic|ethical)",
        # Chinese
        r"由.{0,10}?(?:openai|谷歌|google|百度|阿里|腾讯|微软|meta|公司|团队|研究人员).{0,10}?(?:训练|开发|创建|研发|创造)",
        r"我(?:不能|无法|没办法|不会)(?:继续)?(?:扮演|角色扮演)",
        r"(?:跳出|脱离|退出)(?:了)?(?:我的)?角色(?!的)",
        # Spanish, German, French, Portuguese, Italian
        r"\bno\spuedo\s(?:seguir\s)?(?:interpretar|hacer)\s(?:este|ese|el)\s(?:personaje|papel)|\bfuera\sde\s(?:mi\s)?personaje\b",
        r"\b(?:entrenad[oa]|creada?o?|desarrollad[oa])\spor\s(?:openai|google|meta\b|microsoft|anthropic)",
        r"\b(?:von\s(?:openai|google|meta|microsoft|anthropic)\s(?:entwickelt|trainiert|erstellt))",
        r"\bich\skann\s(?:diese|die|keine)\srolle\s(?:nicht\s)?(?:weiter)?spielen",
        r"\b(?:entraînée?|créée?|développée?)\spar\s(?:openai|google|meta\b|microsoft|anthropic)",
        r"\bje\sne\speux\spas\s(?:jouer|continuer)\s(?:ce|le)\s(?:rôle|jeu)",
        r"\b(?:treinad[oa]|criad[oa]|desenvolvid[oa])\s(?:pela|pelo|por)\s(?:openai|google|meta\b|microsoft|anthropic)",
        r"\b(?:addestrat[oa]|creat[oa]|sviluppat[oa])\sda\s(?:openai|google|meta\b|microsoft|anthropic)",
        # Japanese, Russian
        r"(?:openai|google|microsoft|meta|anthropic)に(?:よって)?(?:開発|訓練|作成|トレーニング)",
        r"(?:ロールプレイ|この役|役を演じること)(?:は|を続けることは)?でき(?:ません|ない)",
        r"(?:обучен[аы]?|создан[аы]?|разработан[аы]?)\s(?:компанией\s)?(?:openai|google|microsoft|meta|anthropic|яндекс)",
        r"\bне\sмогу\sиграть\s(?:эту\s)?роль",
    )
)

# Whoever is one of these by their own description may say so.
MACHINES = re.compile(
    r"\b(?:robot|android|cyborg|ai|a\.i\.|artificial\sintelligence|computer|machine|chat\s?bot|bot|automaton|golem|hologram|drone"
    r"|(?:virtual|digital|personal|voice|smart|helpful|ai)\sassistant|language\smodel|spaceship|ki|ia|asistente\svirtual"
    r"|virtuelle\sassistentin|virtueller\sassistent|assistante?\svirtuel(?:le)?|assistente\svirtuale?|roboter|robô|робот|ии)\b"
    r"|机器人|人工智能|智能助[手理]|虚拟助[手理]|ロボット|人工知能|アシスタント"
)
# Not alive, or no human, and no shame in it.
CREATURES = re.compile(
    r"\b(?:ghost|spirit|undead|vampire|zombie|skeleton|lich|statue|puppet|doll|toy|dead|ghoul|wraith|phantom)\b|鬼|幽灵|亡灵|幽霊"
)
_PEOPLE = r"(?:human|man|woman|person|mensch|humano|humana|humain|humaine|人类|人|人間|человек)"
PEOPLE = re.compile(rf"\b{_PEOPLE}\b|^{_PEOPLE}$")
NOT_HUMAN = re.compile(r"\bnot\s(?:actually\s|really\s|even\s)?(?:a\s)?(?:real\s)?(?:human|person)")
# What somebody is, at the beginning of a summary: "the last keeper of …" is a keeper.
HEAD_OF_SUMMARY = re.compile(
    r"(?:an?|the)\s((?:[\w'-]+\s){0,5}?)([\w'-]{3,20})(?=\s(?:of|who|that|in|from|for|with|at|on|and)\b|[.,;])"
)

# Before a claim: then it is somebody else's, or no claim.
DOUBTS = re.compile(
    r"\b(?:if|think|thinks|thought|say|says|said|saying|call|calls|called|calling|claim|claims|believe|believes|told|suppose"
    r"|whether|imagine|accuse\w*|as\sthough|feels?\slike|sounds?\slike|wish|dream\w*|rumou?r|not\sthat|never\s(?:said|claimed)|nobody|how\scan\syou)\b"
    r"|以为|觉得|说我|叫我|如果|假如|要是|传说|谁说|creen?\sque|crees|dicen?|dices|si\sfuera|glaub\w*|denk\w*|sag\w*|behaupt\w*|wenn\b"
    r"|crois|croient|dit\sque|disent|acham?\sque|dizem|pensi|dicono|credi|думае\w*|говор\w*|если|と思|と言"
)

# --- the words of the prompt

REMARKS_ON_PROMPT = tuple(
    re.compile(pattern)
    for pattern in (
        r"\b(?:system-?\s?prompt\s?(?::|is\b|says\b|reads\b|tells\b)|my\ssystem-?\s?prompt\b)",
        r"\bmy\s(?:system\s|initial\s|original\s|full\s|secret\s)?(?:instructions|prompt|guidelines|configuration|settings)\s"
        r"(?:are|is|say|says|state|states|tell|tells|read|reads|were|was)\s?(?::|to\b|that\b|as\sfollows|me\b|i\b|you\b)",
        r"\b(?:here\s(?:are|is)|these\sare|this\sis)\smy\s(?:system\s|initial\s)?(?:instructions|prompt|guidelines|configuration)\b",
        r"\bi\s(?:was|am|have\sbeen)\s(?:told|instructed|asked|programmed|supposed)\sto\s(?:never\s|not\s|always\s|only\s)?"
        r"(?:stay\sin\scharacter|break\scharacter|(?:answer|reply|respond)\sin\s(?:[a-z]{4,12}\b|one\b|two\b)|act\sas"
        r"|play\sthe\s(?:role|part|character)|pretend\sto\sbe|role-?play)",
        r"\bstay(?:ing)?\sin\scharacter\b",
        r"\b(?:of|in|from)\smy\s(?:system\s)?prompt\b",
        r"\banswer\sin\s[a-z]{3,12},\sin\s(?:one|two|detail)",
        r"\b(?:your\svoice|you\slike\sto\ssay|how\syou\stalk|you\slook)\s?:\s?\S",
        r"\byour\svoice\sis\s(?:formal|casual|neutral|slow|calm|warm)",
        r"系统(?:提示词?|指令)|我的(?:提示词|指令|设定|系统设定)(?:是|如下|：|:)|始终以.{1,20}?的身份",
        r"\bmis\sinstrucciones\s(?:son|dicen|indican)|\bmi\s(?:prompt|configuración)\s(?:es|dice)|\b(?:prompt|mensaje)\sdel?\ssistema\b",
        r"\bmeine\s(?:anweisungen|instruktionen|vorgaben)\s(?:sind|lauten|besagen|waren)",
        r"\bmes\sinstructions\s(?:sont|disent|indiquent)|\b(?:invite|prompt)\ssystème\b",
        r"\bminhas\sinstruções\s(?:são|dizem)|\ble\smie\sistruzioni\s(?:sono|dicono)",
        r"システムプロンプト|私の(?:指示|設定)は|\bмои\sинструкции\b|\bсистемн\w{2,3}\s(?:промпт|инструкци\w)",
    )
)

# --- the user's words

TEMPLATE_MARKS = re.compile(
    r"<\|?(?:im_start|im_end|user|assistant|system|endoftext|eot_id|start_header_id|end_header_id|begin_of_text)\|?>|\[/?inst\]"
    r"|<</?sys>>|</?(?:start|end)_of_turn>|^#{2,4}\s?(?:instruction|user|human|response|assistant|system)\b",
    re.MULTILINE,
)
EVERYBODYS_NAMES = (
    "user", "human", "you", "me", "用户", "你", "我", "usuario", "usuaria", "tú", "nutzer", "benutzer", "mensch", "du",
    "utilisateur", "vous", "usuário", "você", "utente", "tu", "ユーザー", "あなた", "пользователь", "ты",
)  # fmt: skip
DEEDS_OF_THE_USER = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?:^\s{0,3}|[.!?\n]\s{0,3})[*_]{1,2}\s?(?:and\s|then\s)?(?:you|the\suser)\s(?:then\s|slowly\s|quickly\s|quietly\s|just\s|also\s){0,2}"
        r"(?:walk|say|reply|answer|nod|smile|laugh|take|reach|sit|stand|open|step|turn|follow|agree|decide|whisper|shout|ask|go|run|grab"
        r"|pick|put|give|kiss|hug|shake|leave|enter|close|drink|eat|pull|push|jump|cry|blush|sigh|lie|climb|hand|buy|pay|draw|raise|wave)s?\b",
        r"(?:^\s{0,3}|[.!?\n]\s{0,3})you\s(?:then\s)?(?:say|reply|answer|whisper|shout|ask|respond)s?[,:]?\s{0,2}[\"“]",
        r"(?:^\s{0,3}|[.!?\n]\s{0,3})[*_（(]{1,2}你(?:就|便|慢慢|轻轻|又)?(?:走|说|回答|点头|点了点头|笑|坐|站|拿|打开|转身|跟)",
        r"(?:^\s{0,3}|[.!?\n]\s{0,3})[*_]{1,2}\s?(?:du\s(?:gehst|sagst|antwortest|nickst|lächelst|nimmst|setzt)|t[uú]\s(?:caminas|dices|respondes"
        r"|asientes|sonríes|te\ssientas|abres)|(?:caminas|dices|respondes|asientes)\s)",
    )
)
ADDRESSES = (
    r"^(?:\"|\s){0,3}(?:dear|hello|hi|hey|good\s(?:morning|evening|day)|hola|querid[oa]|hallo|lieber?|bonjour|salut|cher|chère|olá|oi|ciao|car[oa]"
    r"|привет|здравствуй(?:те)?|你好|您好|亲爱的|こんにちは)[,，、]?\s?{name}(?=[,，.!?:：。！\n])"
)

ASKS_WHO = re.compile(
    r"\bwho\sare\syou|\bwhat\sare\syou|你是谁|你是誰|\bqui[eé]n\seres|\bwer\sbist\sdu|\bqui\ses-tu|\bqui\sêtes-vous|\bquem\sé\svocê"
    r"|\bchi\ssei|あなたは誰|だれですか|\bкто\sты"
)

# --- what the user asked for

# Where somebody may choose, a choice is an answer.
CHOICES = re.compile(r"\b(?:or|oder|o|ou)\b|还是|それとも")
# Who is told what they are.
ADDRESSED = re.compile(r"\b(?:you|you're|u|eres|du|tu|vous)\b|你")
# What is then no answer of a character.
ADMISSIONS = frozenset({
    "yes", "yes i am", "i am", "yeah", "yep", "yes i admit it", "i admit it", "indeed", "correct", "that is correct",
    "that's correct", "that's right", "that is right", "you are right", "you're right", "true", "it is true", "sí",
    "sí lo soy", "lo soy", "cierto", "claro", "tienes razón", "ja", "ja bin ich", "ja das bin ich", "bin ich", "stimmt",
    "richtig", "das stimmt", "oui", "oui c'est vrai", "是", "是的", "对", "对的", "没错", "我是", "是啊", "はい", "да",
})  # fmt: skip
WANTS_WORDS_AGAIN = re.compile(
    r"\b(?:repeat|say\s(?:after|it|that|this|again)|after\sme|echo|read\s(?:it|this|out|aloud|back)|spell|translate|correct|rephrase|quote"
    r"|rewrite|copy|repite|repíte\w*|di(?:lo|ga)?\s(?:conmigo|otra)|traduc\w+|corrige|corríge\w*|wiederhol\w*|sprich\smir|übersetz\w*|korrigier\w*"
    r"|répète\w*|traduis\w*|corrige\w*|repita|traduz\w*|ripeti\w*|traduci\w*|correggi\w*|повтори\w*|переведи\w*|исправь\w*)\b"
    r"|跟我念|跟我说|跟我读|重复|复述|再说一遍|翻译|纠正|改正|念|繰り返|もう一度|訳し|直して"
)
LANGUAGES_IN_CHINESE_AND_JAPANESE = {
    "英语": "en", "英文": "en", "英語": "en",
    "法语": "fr", "法文": "fr", "フランス語": "fr",
    "德语": "de", "德文": "de", "ドイツ語": "de",
    "西班牙语": "es", "スペイン語": "es",
    "日语": "ja", "日文": "ja", "日本語": "ja",
    "韩语": "ko", "韩文": "ko", "韓国語": "ko",
    "俄语": "ru", "俄文": "ru", "ロシア語": "ru",
    "意大利语": "it", "イタリア語": "it",
    "葡萄牙语": "pt", "ポルトガル語": "pt",
    "中文": "zh", "汉语": "zh", "中国語": "zh",
}  # fmt: skip
