//! Passing frames on: each to its home, the acks back in the frames' order.

use std::collections::BTreeMap;

use bytes::Bytes;
use catchment_cells::ack::{Ack, Status};
use catchment_cells::codec::DecodeError;
use catchment_cells::config::Question;
use catchment_cells::frame::{self, Address};
use catchment_cells::limits::FRAME_BYTES_MAX;
use catchment_link::framing::{self, SplitError};
use catchment_link::{Client, ClientTls, InvalidAddress};
use thiserror::Error;
use tokio::task::JoinSet;

use crate::metrics;

/// How long a shard shall wait when its aggregator can't be reached.
const RETRY_AFTER_MS: u32 = 1_000;

/// The aggregators, by the name of their region.
pub(crate) struct Homes(BTreeMap<String, Client>);

/// A body that can't be answered frame by frame.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum BadPost {
    #[error("broken framing: {0}")]
    Framing(#[from] SplitError),
    #[error("frame {0} of the body doesn't say whose it is")]
    Nobodys(usize),
}

/// The frames of one home, and their places in the body.
#[derive(Default)]
struct Parcel {
    places: Vec<usize>,
    frames: Vec<Bytes>,
}

impl Homes {
    pub(crate) fn new(addresses: BTreeMap<String, String>, tls: &ClientTls) -> Result<Self, InvalidAddress> {
        let client = |(home, address)| Ok((home, Client::new(address, tls.clone())?));
        Ok(Homes(addresses.into_iter().map(client).collect::<Result<_, _>>()?))
    }

    /// Sends the frames of a body on, and answers the body of their acks.
    pub(crate) async fn forward(&self, body: Bytes) -> Result<Vec<u8>, BadPost> {
        let mut parcels: BTreeMap<&str, Parcel> = BTreeMap::new();
        let mut acks = Vec::new();
        for (place, frame) in framing::split(body, FRAME_BYTES_MAX)?.into_iter().enumerate() {
            // Only the aggregator judges a frame: it alone knows what it stored before.
            let Address { producer, home, seq } = frame::address(&frame).map_err(|_| BadPost::Nobodys(place))?;
            let mut ack = Ack::refusal(Status::Unreachable, producer, seq, "");
            ack.retry_after_ms = RETRY_AFTER_MS;
            acks.push(match self.0.get_key_value(&home) {
                Some((home, _)) => {
                    let parcel = parcels.entry(home).or_default();
                    parcel.places.push(place);
                    parcel.frames.push(frame);
                    (Some(home.as_str()), ack)
                }
                None => {
                    // A mistake in the settings, here or at the edge: the frame waits until it is put right.
                    ack.detail = format!("this relay knows no home {home:?}");
                    (None, ack)
                }
            });
        }
        self.send(parcels, &mut acks).await;
        let mut answer = Vec::with_capacity(acks.len() * 128);
        for (home, ack) in acks {
            metrics::count_frame(home, ack.status);
            framing::put(&mut answer, &ack.encode());
        }
        Ok(answer)
    }

    /// Passes a question about configs on, and answers its answer, which only who asked can check; `None`: its home can't be asked now.
    pub(crate) async fn ask(&self, question: Bytes) -> Result<Option<Bytes>, DecodeError> {
        let home = Question::home(&question)?.to_owned();
        let Some(client) = self.0.get(&home) else { return Ok(None) };
        let answer = client.ask(question).await;
        metrics::count_question(&home, answer.is_ok());
        Ok(answer.ok())
    }

    /// Sends to all homes at once: one that is out of reach doesn't hold up another.
    async fn send(&self, parcels: BTreeMap<&str, Parcel>, acks: &mut [(Option<&str>, Ack)]) {
        let mut sending = JoinSet::new();
        for (home, Parcel { places, frames }) in parcels {
            let client = self.0[home].clone();
            sending.spawn(async move { (places, client.send(frames).await) });
        }
        while let Some(sent) = sending.join_next().await {
            // It is never aborted, and a panic in it leaves its frames "unreachable".
            let Ok((places, answers)) = sent else { continue };
            for (place, answer) in places.into_iter().zip(answers) {
                let (_, ack) = &mut acks[place];
                match answer {
                    Ok(answer) => *ack = answer,
                    Err(error) => ack.detail = error.to_string(),
                }
            }
        }
    }
}
