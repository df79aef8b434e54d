// Types of endcap.js, which stands in the page as `window.endcap`.

/** What an event may say besides; session, user, id and time are added. */
export interface EndcapEvent {
  type: "impression" | "click" | "product_viewed" | "add_to_cart" | "remove_from_cart"
    | "purchase_completed" | "search" | "dwell" | "scroll";
  item_id?: string;
  surface?: string;
  request_id?: string;
  slot?: number;
  list_name?: string;
  position?: number;
  price?: number;
  quantity?: number;
  query?: string;
  device?: string;
  country?: string;
  channel?: string;
}

/** A place of a shelf; fields of the catalogue are null where the shop does not know them. */
export interface EndcapSlot {
  item_id: string;
  slot: number;
  score: number;
  source: string;
  title: string | null;
  price: number | null;
  brand: string | null;
  category_path: string | null;
  image_path: string | null;
  url: string | null;
}

/** The answer for one rail; docs/api.md has every field. */
export interface EndcapList {
  request_id: string;
  surface: string;
  items: EndcapSlot[];
  arm: string;
  bundle: string;
  served_from: "live" | "precomputed" | "fallback";
  degraded: string | null;
  feature_age_ms: number | null;
  took_ms: number;
  warnings?: string[];
  flags?: { flag_key: string; variant: string; reason: string; value?: unknown }[];
}

export interface Endcap {
  /** Sends an event with a beacon; impressions are gathered for half a second. */
  event(fields: EndcapEvent): void;
  /** Sends an event and resolves when the next lists know of it, or could not be told. */
  tell(fields: EndcapEvent): Promise<void>;
  /** Sends what is gathered. */
  flush(): void;
  /** Fills the rails below `root` (the document); resolves to no lists where the service does not answer. */
  rails(root?: ParentNode): Promise<EndcapList[]>;
  /** The id of the visit: `data-session` of the script, else one for as long as the tab is open. */
  session(): string;
}

declare global {
  interface Window {
    endcap: Endcap;
  }
  interface HTMLElementEventMap {
    /** On a rail, once it is filled. */
    endcap: CustomEvent<EndcapList>;
  }
}
