//! The codec of all services: a message is weighed ([`proto::weigh`]) before it is decoded, and counts on the meter of its caller.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Buf;
use prost::Message;
use proto::weigh::{Refused, Shaped, budget, weigh};
use tonic::Status;
use tonic::codec::{DecodeBuf, Decoder};

/// Counts what messages take.
pub trait Meter: Send + Sync {
    /// Takes so many bytes for a message that is about to be decoded, or refuses it.
    fn take(&self, bytes: usize) -> Result<(), Status>;
}

thread_local! {
    static METER: RefCell<Option<Arc<dyn Meter>>> = const { RefCell::new(None) };
}

/// Does work whose messages count on `meter`.
pub fn metered<T>(meter: Arc<dyn Meter>, work: impl FnOnce() -> T) -> T {
    /// Puts the earlier one back, whatever happens.
    struct Back(Option<Arc<dyn Meter>>);
    impl Drop for Back {
        fn drop(&mut self) {
            METER.set(self.0.take());
        }
    }
    let _back = Back(METER.replace(Some(meter)));
    work()
}

/// The codec of all services: prost's, with messages weighed before they are decoded.
#[derive(Debug, Clone)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Shaped + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = tonic_prost::ProstEncoder<T>;
    type Decoder = WeighingDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        tonic_prost::ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        WeighingDecoder(PhantomData)
    }
}

/// Decodes messages that do not take too much.
#[derive(Debug)]
pub struct WeighingDecoder<U>(PhantomData<U>);

impl<U: Message + Default + Shaped> Decoder for WeighingDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // The message lies in one piece, so this is no copy; the decoder shares its bytes where the fields do.
        let bytes = buf.copy_to_bytes(buf.remaining());
        let budget = budget(bytes.len());
        let Some(weight) = weigh(U::SHAPE, &bytes, budget) else {
            let wire = bytes.len();
            let refused = Refused::TooLarge { wire, budget };
            return Err(Status::resource_exhausted(refused.to_string()));
        };
        METER.with_borrow(|meter| meter.as_ref().map_or(Ok(()), |meter| meter.take(weight)))?;
        // Words and code of the generated clients and servers.
        U::decode(bytes)
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}
