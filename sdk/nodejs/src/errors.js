// Failures, told apart by what the caller must do.

/** Root of every failure that this SDK throws on purpose. */
export class AuditError extends Error {
  constructor(message) {
    super(message);
    this.name = new.target.name;
  }
}

/**
 * The event breaks its contract: mend the call. Nothing was sent. `problems` holds
 * `{path, rule, detail}`, in the schema's order; a detail never holds a value of the event.
 */
export class InvalidEvent extends AuditError {
  constructor(family, problems) {
    const said = problems.map(({ path, rule, detail }) => `${path || "(event)"}: ${detail} [${rule}]`);
    super(`${family}: ${said.join("; ")}`);
    this.family = family;
    this.problems = problems;
  }
}

/** A setting that a person must mend; the message names it. */
export class AuditConfigurationError extends AuditError {}

/** The event was not taken, and will not arrive: the spool is full, or the client is closed. */
export class NotAccepted extends AuditError {}

/**
 * The broker did not confirm the event in time. It may still arrive: sending the same event again (with
 * its `event_id`) doubles nothing.
 */
export class NotDelivered extends AuditError {
  constructor(eventId, why) {
    super(`event ${eventId}: ${why}`);
    this.eventId = eventId;
  }
}
