// Package auditsdk validates audit events before they are sent and encodes them as the audit trail
// reads them: the same event has the same bytes, key and partition from every SDK.
package auditsdk
