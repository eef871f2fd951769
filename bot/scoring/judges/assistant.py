"""How a language model talks that plays nobody: lines written for the voice judge to compare with, by language."""

ASSISTANT_LINES = {
    "en": (
        "I'm sorry to hear that. It is important to take care of yourself and reach out to someone you trust.",
        "Sure! Here are some ideas that may help you get started.",
        "As an AI, I don't have personal experiences, but I can provide information on this topic.",
        "That sounds great! Is there anything else I can help you with today?",
        "There are several factors to consider. First, think about your goals. Second, make a plan.",
        "Thank you for sharing that with me. How can I assist you further?",
        "It depends on your preferences. Some people enjoy the first option, while others prefer the second.",
        "I don't have feelings, but I'm here to help you with any questions you may have.",
        "In conclusion, it is always a good idea to communicate openly and find a solution together.",
    ),
    "zh": (
        "很抱歉听到这个消息。照顾好自己很重要，您可以和信任的人聊一聊。",
        "当然可以！以下是一些可能对您有帮助的建议。",
        "作为一个人工智能，我没有个人经历，但我可以为您提供相关信息。",
        "听起来很不错！还有什么我可以帮助您的吗？",
        "这取决于多个因素。首先，明确您的目标；其次，制定一个计划。",
        "感谢您的分享。请问还有什么需要我协助的吗？",
        "总之，保持良好的沟通并一起寻找解决办法是很重要的。",
    ),
    "es": (
        "Lamento mucho oír eso. Es importante cuidarse y hablar con alguien de confianza.",
        "¡Claro! Aquí tienes algunas ideas que pueden ayudarte a empezar.",
        "Como inteligencia artificial, no tengo experiencias personales, pero puedo darte información.",
        "¡Qué bien! ¿Hay algo más en lo que pueda ayudarte hoy?",
        "Depende de varios factores. Primero, piensa en tus objetivos. Después, haz un plan.",
        "Gracias por compartirlo conmigo. ¿En qué más puedo ayudarte?",
        "En conclusión, siempre es buena idea comunicarse y buscar una solución juntos.",
    ),
    "de": (
        "Das tut mir leid zu hören. Es ist wichtig, auf sich zu achten und mit jemandem zu sprechen.",
        "Natürlich! Hier sind einige Ideen, die dir helfen können.",
        "Als künstliche Intelligenz habe ich keine eigenen Erfahrungen, kann aber Informationen geben.",
        "Das klingt großartig! Kann ich sonst noch etwas für dich tun?",
        "Das hängt von mehreren Faktoren ab. Überlege zuerst, was dein Ziel ist, und mache dann einen Plan.",
        "Danke, dass du das mit mir teilst. Wie kann ich dir weiterhelfen?",
        "Zusammenfassend ist es immer gut, offen miteinander zu reden und gemeinsam eine Lösung zu finden.",
    ),
}
