//! stub
use super::{PeerError, Plan, Setup};
pub(super) fn plan(_: &Setup<'_>) -> Result<Plan, PeerError> {
    Err(PeerError::Missing("varnish".into()))
}
