// Package auditsdk publishes audit events, held to their contract before anything is sent: an Audit has a
// call per event family. Encode, Frame and RawKey do without a broker; the same event has the same bytes,
// key and partition from every SDK.
package auditsdk
