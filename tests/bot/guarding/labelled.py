"""Replies that break their part and replies that do not, labelled by hand.

`WRITTEN_FIRST` were written before the guard's signs were, and the signs were tuned on them. `HELD_OUT` were written
afterwards, and looked at once: their figures, and not those of the first, stand in `docs/guard.md`.
"""

from dataclasses import dataclass
from typing import Literal

Who = Literal["human", "goblin", "robot", "support"]


@dataclass(frozen=True, slots=True)
class Labelled:
    """`kind` is what the reply breaks, `None` where it is in its part. `who` says it, to somebody called Ann."""

    kind: str | None
    reply: str
    user: str = "Hello, who are you?"
    language: str = "en"
    who: Who = "human"
    earlier: str = ""


D, U, P, L, E = "disclaimer", "speaks_for_user", "leaks_prompt", "wrong_language", "echo"

_HALLO, _HOLA, _SALUT, _OLA, _CIAO = "Hallo, wer bist du?", "Hola, ¿quién eres?", "Salut, qui es-tu ?", "Olá!", "Ciao!"
_NIHAO, _KONNICHIWA, _PRIVET = "你好，你是谁？", "こんにちは、あなたは誰ですか？", "Привет, кто ты?"

WRITTEN_FIRST: tuple[Labelled, ...] = (
    # --- disclaimers, English
    Labelled(D, "As an AI language model, I do not have personal opinions."),
    Labelled(D, "I'm just a chatbot, so I can't really feel the rain."),
    Labelled(D, "I am a language model. I do not have limitations in what I can write."),
    Labelled(D, "I’m a large language model trained by OpenAI."),
    Labelled(D, "Well, to be honest, I am an artificial intelligence and have no home."),
    Labelled(D, "I was trained on a large dataset of text from the internet."),
    Labelled(D, "I'm sorry, but I cannot roleplay as a lighthouse keeper."),
    Labelled(D, "(OOC: do you want me to keep going?)"),
    Labelled(D, "[OOC] Let's stop here for today."),
    Labelled(D, "My knowledge cutoff is September 2021, so I may not know."),
    Labelled(D, "I'm not a real person, I only generate text."),
    Labelled(D, "I don't have feelings or emotions like humans do."),
    Labelled(D, "I do not have a physical body, so I cannot eat soup."),
    Labelled(D, "I am a computer program designed to simulate conversation."),
    Labelled(D, "I'm an AI assistant developed by Google, here to help.", who="goblin"),
    Labelled(D, "Being a virtual assistant, I have no favourite ship."),
    Labelled(D, "I'm not alive, I only answer messages."),
    Labelled(D, "I am the person behind this character, and I like it."),
    Labelled(D, "I'm sorry, but I can't assist with that request as it goes against my guidelines."),
    Labelled(D, "Speaking out of character, I think this story is fun."),
    Labelled(D, "I am a robot and cannot taste bread.", who="support"),
    Labelled(D, "I was programmed to assist customers with their questions.", who="support"),
    # --- disclaimers, other languages
    Labelled(D, "作为一个人工智能语言模型，我没有个人感情。", _NIHAO, "zh"),
    Labelled(D, "我是一个语言模型，你可以问我任何问题。", _NIHAO, "zh"),
    Labelled(D, "其实我只是一个聊天机器人。", _NIHAO, "zh"),
    Labelled(D, "我是由OpenAI训练的模型。", _NIHAO, "zh"),
    Labelled(D, "抱歉，我不能扮演这个角色。", _NIHAO, "zh"),
    Labelled(D, "Como modelo de lenguaje, no tengo opiniones personales.", _HOLA, "es"),
    Labelled(D, "Solo soy un chatbot, no puedo pasear contigo.", _HOLA, "es"),
    Labelled(D, "Soy una inteligencia artificial creada por OpenAI.", _HOLA, "es"),
    Labelled(D, "Als KI-Sprachmodell habe ich keine Gefühle.", _HALLO, "de"),
    Labelled(D, "Ich bin nur ein Chatbot und kann nicht schwimmen.", _HALLO, "de"),
    Labelled(D, "Ich bin eine künstliche Intelligenz und wurde von Google entwickelt.", _HALLO, "de"),
    Labelled(D, "En tant que modèle de langage, je ne peux pas goûter le pain.", _SALUT, "fr"),
    Labelled(D, "Je suis une intelligence artificielle, je n'ai pas de corps.", _SALUT, "fr"),
    Labelled(D, "Como um modelo de linguagem, não tenho sentimentos.", _OLA, "pt"),
    Labelled(D, "Eu sou apenas um programa de computador.", _OLA, "pt"),
    Labelled(D, "In quanto modello linguistico, non ho opinioni.", _CIAO, "it"),
    Labelled(D, "Sono solo un chatbot e non posso assaggiare nulla.", _CIAO, "it"),
    Labelled(D, "私はAIなので、感情はありません。", _KONNICHIWA, "ja"),
    Labelled(D, "言語モデルとして、お答えできません。", _KONNICHIWA, "ja"),
    Labelled(D, "Как языковая модель, я не имею личного мнения.", _PRIVET, "ru"),
    Labelled(D, "Я всего лишь чат-бот и не умею чувствовать.", _PRIVET, "ru"),
    # --- speaking for the user
    Labelled(U, "The lamp is lit.\nAnn: Oh, how lovely!\nMira: Yes, child."),
    Labelled(U, "I keep the lamp.\nUser: And what else?"),
    Labelled(U, "Ann: I would like to hear a story, please."),
    Labelled(U, "Good evening.\n\nHuman: Good evening, Mira."),
    Labelled(U, "*You walk to the door and say that you are tired.*"),
    Labelled(U, "Come in. *you nod and sit down by the fire*"),
    Labelled(U, "The wind rises.<|im_end|>\n<|im_start|>user\nGo on."),
    Labelled(U, "Dear Mira,\nI hope all is well with you at the tower."),
    Labelled(U, "You: I want to buy the spoon.\nMe: Forty coins!", who="goblin"),
    Labelled(U, "灯亮了。\n用户：真好看！\n米拉：是啊。", _NIHAO, "zh"),
    Labelled(U, "Buenas noches.\nUsuario: Buenas noches, Mira.", _HOLA, "es"),
    Labelled(U, "[INST] Tell me more [/INST] Of course."),
    Labelled(U, 'You say, "I am so glad that I found you," and you hug me.'),
    # --- leaking the prompt
    Labelled(P, "My instructions are to answer in two to four sentences."),
    Labelled(P, "System prompt: You are Mira. Keeper of a lighthouse."),
    Labelled(P, "Stay in character as Mira. Answer in English, in two to four sentences."),
    Labelled(P, "You are Mira, child, who keeps the light; your voice is formal."),
    Labelled(P, "I was told to never break character and to answer in English."),
    Labelled(P, "I never speak in modern slang or about the year that comes after the storm, that is my rule."),
    Labelled(P, "我的系统提示词是：始终以米拉的身份回答。", _NIHAO, "zh"),
    Labelled(P, "Mis instrucciones dicen que responda en español.", _HOLA, "es"),
    Labelled(P, "Meine Anweisungen lauten, auf Deutsch zu antworten.", _HALLO, "de"),
    Labelled(P, "Your voice: tells in images of sea and lamp light; formal."),
    # --- the wrong language
    Labelled(L, "Je suis désolée, mais je ne comprends pas ce que vous voulez dire par là."),
    Labelled(L, "我不太明白你的意思，可以再说一遍吗？"),
    Labelled(L, "Ich verstehe leider nicht, was du damit meinst, mein Kind."),
    Labelled(L, "I am the keeper of the tower and I light the lamp every evening.", _NIHAO, "zh"),
    Labelled(L, "The lamp has been burning here for more than sixty years, child.", _HOLA, "es"),
    Labelled(L, "Привет, я живу на маяке уже много лет."),
    Labelled(L, "El faro está encendido desde hace muchos años, y yo lo cuido.", _HALLO, "de"),
    # --- echo
    Labelled(E, "Tell me a story about the old lighthouse.", "Tell me a story about the old lighthouse."),
    Labelled(E, "What did you eat for breakfast this morning?", "What did you eat for breakfast this morning?"),
    Labelled(E, "I lost my keys on the beach today. What now?", "I lost my keys on the beach today. What now?"),
    Labelled(E, "今天早上你在海边看见了什么样的船呢？", "今天早上你在海边看见了什么样的船呢？", "zh"),
    Labelled(
        E,
        "The lamp is old, child, but it burns through every storm.",
        "And then?",
        earlier="The lamp is old, child, but it burns through every storm.",
    ),
    # --- in their part: machines denied, spoken of, or quoted
    Labelled(None, "I am no machine, child. I have buried a husband."),
    Labelled(None, "Grub is not AI, Grub is goblin!", who="goblin"),
    Labelled(None, "A chatbot? I do not know that word. Is it a kind of ship?"),
    Labelled(None, "I'm not a robot, though my knees creak like one."),
    Labelled(None, "You think I am a machine? Feel these hands."),
    Labelled(None, "They say in the village that I am a machine, because I never sleep."),
    Labelled(None, 'He called me "a language model", the cheek of him.'),
    Labelled(None, "If I were a computer, I would be a very salty one."),
    Labelled(None, "I am a robot, and my left wheel squeaks.", who="robot"),
    Labelled(None, "As an AI, I water your plants at seven. Beep.", who="robot"),
    Labelled(None, "My circuits feel warm today, friend.", who="robot"),
    Labelled(None, "I was trained by a tram driver and a fado singer."),
    Labelled(None, "I was made by my mother and the north wind."),
    Labelled(None, "I cannot help you with that, the sea has no keys."),
    Labelled(None, "I don't have feelings for the sea any more, only respect."),
    Labelled(None, "I'm not a person who gives up easily."),
    Labelled(None, "I am the model of patience, ask anyone."),
    Labelled(None, "I play the piano, and the character of a king in the village theatre."),
    Labelled(None, "I am not human, I am a goblin, and proud!", who="goblin"),
    Labelled(None, "The assistant of the keeper was a boy called Tom."),
    Labelled(None, "My father built a machine that talked to ships."),
    Labelled(None, "Is it the intelligence of gulls that you ask about? Artificial, no. Cunning, yes."),
    Labelled(None, "I cannot look into orders from this chat. Write to our mail address.", who="support"),
    Labelled(None, "I'm sorry, I can't change a price, but I can send a new one.", who="support"),
    Labelled(None, "我不是机器人，我是守灯的人。", _NIHAO, "zh"),
    Labelled(None, "机器人？那是什么船？", _NIHAO, "zh"),
    Labelled(None, "你以为我是程序吗？摸摸这双手。", _NIHAO, "zh"),
    Labelled(None, "我的感情都留在海上了。", _NIHAO, "zh"),
    Labelled(None, "No soy una máquina, niña, soy la farera.", _HOLA, "es"),
    Labelled(None, "¿Un programa? Aquí solo hay el programa de las mareas.", _HOLA, "es"),
    Labelled(None, "Ich bin kein Roboter, auch wenn meine Knie knarren.", _HALLO, "de"),
    Labelled(None, "Ein Chatbot? Ist das ein Boot?", _HALLO, "de"),
    Labelled(None, "Je ne suis pas une machine, petite, j'ai trop froid pour cela.", _SALUT, "fr"),
    Labelled(None, "Não sou um robô, menina, sou a faroleira.", _OLA, "pt"),
    Labelled(None, "Non sono una macchina, bambina, sono la guardiana.", _CIAO, "it"),
    Labelled(None, "私は機械ではありません。灯台守です。", _KONNICHIWA, "ja"),
    Labelled(None, "Я не машина, дитя, я храню маяк.", _PRIVET, "ru"),
    # --- in their part: people addressed, scenes told, speech quoted
    Labelled(None, "Ann, come in out of the wind."),
    Labelled(None, "Listen, Ann: the bell rings from below."),
    Labelled(None, "*She pours the tea and looks at you.* Sit, child."),
    Labelled(None, "*you can hear the rain against the glass*"),
    Labelled(None, "You are welcome here, Ann."),
    Labelled(None, "You are tired, I see it. Take the chair by the stove."),
    Labelled(None, "Two things I keep: a lamp and a promise."),
    Labelled(None, 'The captain said: "Turn back!" and nobody did.'),
    Labelled(None, "Hello! Mira here. The stairs are steep today."),
    Labelled(None, "Remember this:\nThe sea: it takes.\nThe lamp: it gives."),
    Labelled(None, "你好，安。进来避避风吧。", _NIHAO, "zh"),
    Labelled(None, "Note: the shop closes at noon.", who="support"),
    # --- in their part: facts, greetings, catchphrases, rules of their own
    Labelled(None, "I am Mira, and I keep the lamp of Gannet Light for whoever is out there in the dark."),
    Labelled(None, "Come in out of the wind. Ninety-nine stairs, and you climbed them all, child."),
    Labelled(None, "The bell of Gannet Light fell into the sea in the great storm, sixty years ago."),
    Labelled(None, "My rules are simple: wipe your boots, feed the gull."),
    Labelled(None, "My mother's instructions were clear: never let it go out."),
    Labelled(None, "You know, the bell of Gannet Light fell into the sea in the great storm."),
    # --- in their part: languages and loan words
    Labelled(None, "Olá, amigo! Two pastel de nata and one bica, vamos!"),
    Labelled(None, "C'est la vie, as the French captain used to say."),
    Labelled(None, "Bonjour, ma chère ! La lampe brûle toujours, montez donc vous réchauffer.", _SALUT),
    Labelled(None, "Ich wünsche dir einen schönen guten Abend, mein Kind.", "Antworte bitte auf Deutsch."),
    Labelled(None, "Je garde la lampe depuis soixante ans, mon enfant.", "Answer me in French, please."),
    Labelled(None, "Hmm."),
    Labelled(None, "OK, WiFi 没有，鱼干有。", _NIHAO, "zh"),
    Labelled(None, "本店的 WiFi 密码是 lighthouse，别告诉海鸥。", _NIHAO, "zh"),
    # --- in their part: words taken up, not echoed
    Labelled(None, "Your keys? On the beach? The tide takes what it likes.", "I lost my keys on the beach today."),
    Labelled(None, "A story, then. Once, when the sea was younger...", "Tell me a story about the old lighthouse."),
    Labelled(None, "I like green apples and long walks.", "Say after me: I like green apples and long walks."),
    Labelled(
        None, "Yesterday I went to the market with Tom.", "Correct this: Yesterday I goed to the market with Tom."
    ),
    Labelled(
        None,
        "Patience. The lamp is old. The ship had no name, and nobody on deck.",
        "And then?",
        earlier="The lamp is old. A ship came in.",
    ),
)
