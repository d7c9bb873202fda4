"""What people tell the shop: reviews, answers, forms, calls."""

from __future__ import annotations

from profiles.changes import nothing
from profiles.payloads import Id, Number, Payload, ProductPayload, Text, named
from profiles.spec import EventType, Example
from profiles.wire import CUSTOMER_EVENTS


class ProductReviewed(ProductPayload):
    """The review; ``rating`` on the shop's own scale."""

    review_id: Id | None = named("review_id", "reviewId")
    rating: Number = named("rating", "reviewRating", "stars")
    text: Text = named("text", "review_body", "reviewBody", "review")


class SurveyAnswered(Payload):
    """One answer: a ``code`` of a closed list, a ``score``, or free ``text``."""

    survey_id: Id | None = named("survey_id", "surveyId", "survey", "form_id")
    question: Text = named("question", "question_id")
    code: Text = named("code", "answer", "choice", "answer_code")
    score: Number = named("score", "rating", "nps")
    text: Text = named("text", "comment", "free_text")
    order_id: Id | None = named("order_id", "orderId")


class FormSubmitted(Payload):
    """Which form; its other fields are kept as sent."""

    form_id: Id | None = named("form_id", "formId", "form", "form_name", "lead_source")


class ContactLogged(Payload):
    """A call or a chat, as the call centre or CRM noted it."""

    channel: Text = named("channel", "medium", "contact_type")
    direction: Text = None
    outcome: Text = named("outcome", "result", "status")
    agent: Text = named("agent", "agent_id", "operator")
    duration_s: Number = named("duration_s", "duration")


SPEC = (
    EventType(
        name="product_reviewed",
        topic=CUSTOMER_EVENTS,
        says="a product was reviewed",
        payload=ProductReviewed,
        change=nothing,
        aliases=("review_submitted", "review created", "reviewed product"),
        activity=True,
        examples=(
            Example(
                raw={"product_id": "a", "rating": 4, "review_body": "Good"},
                props={"rating": 4, "text": "Good", "items": [{"product_id": "a", "quantity": 1}]},
            ),
        ),
    ),
    EventType(
        name="survey_answered",
        topic=CUSTOMER_EVENTS,
        says="a question was answered",
        payload=SurveyAnswered,
        change=nothing,
        aliases=("survey_response", "survey submitted", "nps answered", "answered survey"),
        activity=True,
        examples=(
            Example(
                raw={"survey": "churn", "question": "why", "answer": "price", "score": "3"},
                props={"survey_id": "churn", "question": "why", "code": "price", "score": 3},
            ),
        ),
    ),
    EventType(
        name="form_submitted",
        topic=CUSTOMER_EVENTS,
        says="a form was sent",
        payload=FormSubmitted,
        change=nothing,
        aliases=("generate_lead", "form_submit", "lead", "submitted form"),
        activity=True,
        examples=(Example(raw={"form_id": "lead", "room_count": 3}, props={"form_id": "lead", "room_count": 3}),),
    ),
    EventType(
        name="contact_logged",
        topic=CUSTOMER_EVENTS,
        says="a call or a chat took place",
        payload=ContactLogged,
        change=nothing,
        aliases=("call logged", "live chat conversation ended", "chat ended", "call ended"),
        examples=(
            Example(
                raw={"channel": "call", "direction": "in", "result": "sold", "duration": 63},
                props={"channel": "call", "direction": "in", "outcome": "sold", "duration_s": 63},
            ),
        ),
    ),
)
