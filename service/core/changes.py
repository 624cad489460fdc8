"""Which of several observations tell something new. Pure."""

from collections.abc import Iterable, Mapping

from service.core.events import CustomerErased, Data, Event, subjects


def changed_events(events: Iterable[Event], last_known: Mapping[str, Data]) -> list[Event]:
    """The observations of one moment whose data differ from the last known, at most one for each subject.

    `last_known` is the last known data by subject. Several contracts may name one customer: the last in
    the order of event ids counts, so that two spellings of a name do not alternate for ever. The name of
    an erased customer is never recorded again.
    """
    by_subject = {
        subject: event for event in sorted(events, key=lambda e: e.event_id) for subject in subjects(event)
    }
    return [
        event
        for subject, event in by_subject.items()
        if last_known.get(subject) != event.data and not isinstance(last_known.get(subject), CustomerErased)
    ]
